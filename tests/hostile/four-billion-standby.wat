(func $answer
  (i32.store8 (i32.const 268) (i32.const 1))
  (i32.store (i32.const 272) (i32.const -1)))
