;; JSON, but no schema: 1.0
(func $describe (export "regatta:policy/scaling@0.1.0#describe") (result i32)
  (call $string (i32.const 0) (i32.const 1024) (i32.const 7))
  (call $string (i32.const 8) (i32.const 1040) (i32.const 5))
  (call $string (i32.const 24) (i32.const 1040) (i32.const 3))
  (i32.const 0))
