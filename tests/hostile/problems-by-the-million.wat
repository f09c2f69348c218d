;; A million empty problems with the parameters, all within its memory.
(func $validate (export "regatta:policy/scaling@0.1.0#validate") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 260)))
  (i32.store8 (i32.const 128) (i32.const 1))
  (call $string (i32.const 132) (i32.const 65536) (i32.const 1000000))
  (i32.const 128))
