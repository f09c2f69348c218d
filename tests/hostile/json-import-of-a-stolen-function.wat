(import "regatta" "spawn" (func (param i32)))
