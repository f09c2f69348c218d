(func $answer
  (drop (memory.grow (i32.const 40)))
  (i32.store8 (i32.const 256) (i32.const 1))
  (call $string (i32.const 264) (i32.const 8192) (i32.const 2000000)))
