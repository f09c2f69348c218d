(import "regatta:policy/observe@0.2.0" "instances" (func (param i32)))
