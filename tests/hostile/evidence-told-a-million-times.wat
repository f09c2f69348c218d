;; A bomb: 1,000 reasons that all point to one list of 1,000 pieces of evidence, each of the same 1,000 bytes:
;; 48 KB of the guest's memory, 2 GB of the host's.
(func $answer
  (local $i i32)
  (drop (memory.grow (i32.const 4)))
  (memory.fill (i32.const 8192) (i32.const 0x61) (i32.const 1000))
  (loop $evidence
    (call $string (i32.add (i32.const 16384) (i32.mul (i32.const 16) (local.get $i))) (i32.const 8192) (i32.const 1000))
    (call $string (i32.add (i32.const 16392) (i32.mul (i32.const 16) (local.get $i))) (i32.const 8192) (i32.const 1000))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $evidence (i32.lt_u (local.get $i) (i32.const 1000))))
  (local.set $i (i32.const 0))
  (loop $reason
    (call $string (i32.add (i32.const 65552) (i32.mul (i32.const 24) (local.get $i))) (i32.const 16384) (i32.const 1000))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $reason (i32.lt_u (local.get $i) (i32.const 1000))))
  (call $string (i32.const 304) (i32.const 65536) (i32.const 1000)))
