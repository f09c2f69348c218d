;; 300,000 bytes of state, of memory that it does have.
(func $answer
  (drop (memory.grow (i32.const 8)))
  (call $string (i32.const 312) (i32.const 4096) (i32.const 300000)))
