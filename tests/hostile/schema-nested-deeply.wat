;; 100,000 opening brackets: a parser that recurses would overflow.
(func $describe (export "regatta:policy/scaling@0.1.0#describe") (result i32)
  (memory.fill (i32.const 8192) (i32.const 0x5b) (i32.const 100000))
  (call $string (i32.const 0) (i32.const 1024) (i32.const 7))
  (call $string (i32.const 8) (i32.const 1040) (i32.const 5))
  (call $string (i32.const 24) (i32.const 8192) (i32.const 100000))
  (i32.const 0))
