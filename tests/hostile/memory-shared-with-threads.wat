(memory (export "memory") 2 2 shared)
