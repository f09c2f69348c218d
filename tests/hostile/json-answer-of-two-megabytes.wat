(func $answer (result i64)
  (drop (memory.grow (i32.const 40)))
  (memory.fill (i32.const 65536) (i32.const 0x20) (i32.const 2000000))
  (call $text (i32.const 65536) (i32.const 2000000)))
