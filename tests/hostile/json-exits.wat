(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
(func $answer (result i64) (call $exit (i32.const 0)) (unreachable))
