;; The bits of a NaN that arithmetic made: the one thing in which processors differ.
(func $answer
  (i32.store (i32.const 264) (i32.const 3))
  (f64.store (i32.const 2048) (f64.sub (f64.const inf) (f64.const inf)))
  (f32.store (i32.const 2056) (f32.sqrt (f32.const -1)))
  (v128.store (i32.const 2060) (f64x2.add (v128.const f64x2 nan:0x1 -inf) (v128.const f64x2 1 inf)))
  (call $string (i32.const 312) (i32.const 2048) (i32.const 28)))
