;; A megabyte that says nothing.
(@custom "noise" "{{100000 × nothing at all }}")
