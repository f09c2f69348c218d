;; Asks for a gigabyte, is refused, and goes on with what it has.
(func $answer
  (drop (memory.grow (i32.const 16384)))
  (i32.store (i32.const 264) (i32.const 3)))
