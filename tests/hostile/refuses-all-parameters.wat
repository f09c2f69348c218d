;; One problem: path "again", message "true".
(func $validate (export "regatta:policy/scaling@0.1.0#validate") (param i32 i32) (result i32)
  (i32.store8 (i32.const 128) (i32.const 1))
  (call $string (i32.const 132) (i32.const 2048) (i32.const 1))
  (call $string (i32.const 2048) (i32.const 1088) (i32.const 5))
  (call $string (i32.const 2056) (i32.const 1072) (i32.const 4))
  (i32.const 128))
