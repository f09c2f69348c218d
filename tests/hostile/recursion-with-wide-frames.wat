;; Few calls, each with a frame of 1,000 values that are alive across it.
(func $wide (param {{1000 × i64 }})
  {{1000 × (local.get 0) }}
  (call $wide))
(func $answer (call $wide {{1000 × (i64.const 1) }}))
