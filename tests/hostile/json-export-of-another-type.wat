(func $decide (export "regatta_decide") (param i64) (result i32) (i32.const 3))
(func $answer (result i64) (i64.const 0))
