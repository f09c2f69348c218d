(func (export "cabi_post_regatta:policy/scaling@0.1.0#decide") (param i32) (unreachable))
