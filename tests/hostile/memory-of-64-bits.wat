(memory (export "memory") i64 2)
