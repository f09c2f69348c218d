(func $alloc (export "regatta_alloc") (param i32) (result i32) (unreachable))
