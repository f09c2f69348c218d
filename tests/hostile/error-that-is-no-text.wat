(data (i32.const 1104) "\ff\fe\fd")
(func $answer
  (i32.store8 (i32.const 256) (i32.const 1))
  (call $string (i32.const 264) (i32.const 1104) (i32.const 3)))
