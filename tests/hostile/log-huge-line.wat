;; A line of 100,000 zero bytes, which are valid text.
(import "regatta:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
(func $answer
  (drop (memory.grow (i32.const 4)))
  (call $log (i32.const 2) (i32.const 65536) (i32.const 100000))
  (i32.store (i32.const 264) (i32.const 3)))
