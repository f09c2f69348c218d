;; What a language with saturating casts makes of infinity: four billion.
(func $answer (i32.store (i32.const 264) (i32.trunc_sat_f64_u (f64.const inf))))
