(@custom "regatta-contract" "9.9.9")
