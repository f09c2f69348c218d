;; Fifty memories beside its own.
(memory (export "memory") 2)
{{50 × (memory 1) }}
