;; A hundred pages for each argument, and takes no for an answer only by trapping.
(func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (local $at i32)
  (loop $again
    (local.set $at (memory.grow (i32.const 100)))
    (br_if $again (i32.ne (local.get $at) (i32.const -1))))
  (unreachable))
