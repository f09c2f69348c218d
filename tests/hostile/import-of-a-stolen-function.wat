;; A function that the interface does not have.
(import "regatta:policy/observe@0.1.0" "steal" (func (result i32)))
