;; One reason, whose code is no UTF-8.
(data (i32.const 1104) "\ff\fe\fd")
(func $answer
  (call $string (i32.const 2048) (i32.const 1104) (i32.const 3))
  (call $string (i32.const 304) (i32.const 2048) (i32.const 1)))
