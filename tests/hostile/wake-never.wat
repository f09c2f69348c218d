;; Wants its next tick in 584 million years.
(func $answer
  (i32.store (i32.const 264) (i32.const 3))
  (i32.store8 (i32.const 288) (i32.const 1))
  (i64.store (i32.const 296) (i64.const -1)))
