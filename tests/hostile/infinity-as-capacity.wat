(func $answer (i32.store (i32.const 264) (i32.trunc_f64_u (f64.div (f64.const 1) (f64.const 0)))))
