;; 300,000 spaces.
(func $describe (export "regatta:policy/scaling@0.1.0#describe") (result i32)
  (drop (memory.grow (i32.const 8)))
  (memory.fill (i32.const 8192) (i32.const 0x20) (i32.const 300000))
  (call $string (i32.const 0) (i32.const 1024) (i32.const 7))
  (call $string (i32.const 8) (i32.const 1040) (i32.const 5))
  (call $string (i32.const 24) (i32.const 8192) (i32.const 300000))
  (i32.const 0))
