;; Enters itself again while its arguments are being written.
(func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (drop (call $decide (i32.const 0)))
  (i32.const 4096))
(func $answer (i32.store (i32.const 264) (i32.add (i32.load (i32.const 264)) (i32.const 1))))
