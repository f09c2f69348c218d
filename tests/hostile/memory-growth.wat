;; Grows until it is refused, then gives up as allocators do.
(func $answer
  (loop $again
    (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
  (unreachable))
