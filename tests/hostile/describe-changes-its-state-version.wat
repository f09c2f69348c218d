;; The next state version each time, counted where only memory left by an earlier call could tell.
(func $describe (export "regatta:policy/scaling@0.1.0#describe") (result i32)
  (i32.store (i32.const 3000) (i32.add (i32.load (i32.const 3000)) (i32.const 1)))
  (call $string (i32.const 0) (i32.const 1024) (i32.const 7))
  (call $string (i32.const 8) (i32.const 1040) (i32.const 5))
  (call $string (i32.const 24) (i32.const 1072) (i32.const 4))
  (i32.store offset=40 (i32.const 0) (i32.load (i32.const 3000)))
  (i32.const 0))
