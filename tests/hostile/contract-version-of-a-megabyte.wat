(@custom "regatta-contract" "{{100000 × version 9 }}")
