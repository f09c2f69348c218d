;; Gives back twice the state that it was given, and a byte.
(global $args (mut i32) (i32.const 0))
(func $decide (export "regatta:policy/scaling@0.1.0#decide") (param $args i32) (result i32)
  (local $bytes i32)
  (local.set $bytes (i32.add (i32.const 1) (i32.mul (i32.const 2) (i32.load offset=164 (local.get $args)))))
  (drop (memory.grow (i32.div_u (local.get $bytes) (i32.const 65536))))
  (call $string (i32.const 312) (i32.const 4096) (local.get $bytes))
  (i32.store (i32.const 264) (i32.const 3))
  (i32.const 256))
;; The state that came in lies where the next would be.
(func $realloc (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
  (global.set $next (i32.add (local.get $at) (local.get $size)))
  (loop $again
    (if (i32.gt_u (global.get $next) (i32.mul (memory.size) (i32.const 65536)))
      (then (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))))
  (local.get $at))
