;; Grows a table until it is refused, then gives up.
(table $table 1 funcref)
(func $answer
  (loop $again
    (br_if $again (i32.ne (table.grow $table (ref.null func) (i32.const 10000)) (i32.const -1))))
  (unreachable))
