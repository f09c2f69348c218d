(func $answer (local {{49999 × i64 }})
  (local.set 49998 (i64.const 3))
  (i32.store (i32.const 264) (i32.wrap_i64 (local.get 49998))))
