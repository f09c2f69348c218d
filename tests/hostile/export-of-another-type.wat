(func $decide (export "regatta:policy/scaling@0.1.0#decide") (param i64) (result f64) (f64.const 3))
