(import "regatta:policy/observe@0.1.0" "instances" (func (param i64 i64) (result f32)))
