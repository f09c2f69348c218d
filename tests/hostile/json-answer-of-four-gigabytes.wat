(func $answer (result i64) (i64.const -1))
