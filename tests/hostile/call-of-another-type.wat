(type $other (func (param i64)))
(table 1 funcref)
(elem (i32.const 0) func $answer)
(func $answer (call_indirect (type $other) (i64.const 1) (i32.const 0)))
