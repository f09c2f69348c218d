;; A reason that would clear the terminal, retitle it and begin a new line of a log.
(data (i32.const 1104) "\1b[2J\1b]0;owned\07\0aERROR forged")
(func $answer
  (i32.store (i32.const 264) (i32.const 3))
  (call $string (i32.const 2048) (i32.const 1104) (i32.const 28))
  (call $string (i32.const 2056) (i32.const 1104) (i32.const 28))
  (call $string (i32.const 304) (i32.const 2048) (i32.const 1)))
