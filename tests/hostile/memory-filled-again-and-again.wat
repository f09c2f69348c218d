;; 48 MB are copied by one instruction, which costs as much fuel as it has bytes.
(func $answer
  (drop (memory.grow (i32.const 750)))
  (loop $again
    (memory.copy (i32.const 65536) (i32.const 65537) (i32.const 48000000))
    (br $again)))
