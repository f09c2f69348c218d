(func $decide (export "regatta:policy/scaling@0.1.0#decide") (param i32) (result i32) (i32.const -8))
