;; 20,000 blocks, one inside the other.
(func $answer
  {{20000 × block }}
  {{20000 × end }}
  (i32.store (i32.const 264) (i32.const 3)))
