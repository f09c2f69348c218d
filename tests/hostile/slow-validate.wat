;; Little fuel, much time: the host takes half a megabyte of text for each of many calls.
(import "regatta:policy/observe@0.1.0" "metric" (func $metric (param i32 i32 i32)))
(func $validate (export "regatta:policy/scaling@0.1.0#validate") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 16)))
  (loop $again
    (call $metric (i32.const 65536) (i32.const 500000) (i32.const 3072))
    (br $again))
  (i32.const 128))
