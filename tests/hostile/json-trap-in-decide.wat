(func $answer (result i64) (unreachable))
