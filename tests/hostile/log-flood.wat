(import "regatta:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
(func $answer
  (local $left i32)
  (local.set $left (i32.const 10000))
  (loop $again
    (call $log (i32.const 2) (i32.const 1088) (i32.const 5))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (i32.store (i32.const 264) (i32.const 3)))
