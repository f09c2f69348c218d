;; Little fuel, much time: the host copies the table of instances for each of millions of calls.
(import "regatta:policy/observe@0.1.0" "instances" (func $instances (param i32)))
(func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
(func $answer
  (loop $again
    (call $instances (i32.const 3072))
    (br $again)))
