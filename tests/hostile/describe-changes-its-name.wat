;; "hostile" when asked for the first time, "ostile" from then on, had it a memory of that.
(global $asked (mut i32) (i32.const 0))
(func $describe (export "regatta:policy/scaling@0.1.0#describe") (result i32)
  (call $string (i32.const 0)
    (i32.add (i32.const 1024) (global.get $asked)) (i32.sub (i32.const 7) (global.get $asked)))
  (call $string (i32.const 8) (i32.const 1040) (i32.const 5))
  (call $string (i32.const 24) (i32.const 1072) (i32.const 4))
  (global.set $asked (i32.const 1))
  (i32.const 0))
