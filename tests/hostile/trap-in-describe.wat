(func $describe (export "regatta:policy/scaling@0.1.0#describe") (result i32) (unreachable))
