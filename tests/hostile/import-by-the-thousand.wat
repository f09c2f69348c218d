;; A thousand imports that an error could repeat, one with a name of 50,000 bytes.
(import "env" "{{50000 × x}}" (func))
{{1000 × (import "wasi_snapshot_preview2" "proc_exec" (func)) }}
