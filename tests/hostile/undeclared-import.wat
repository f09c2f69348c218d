(import "wasi_snapshot_preview2" "random_get" (func (param i32 i64 i32) (result i32)))
(import "env" "rand" (func (result i32)))
