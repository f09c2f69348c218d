;; Behaves until the set's tick 1,000, and then never comes back.
(func $decide (export "regatta:policy/scaling@0.1.0#decide") (param $args i32) (result i32)
  (loop $again (br_if $again (i64.ge_u (i64.load offset=8 (local.get $args)) (i64.const 1000))))
  (call $answer)
  (i32.const 256))
