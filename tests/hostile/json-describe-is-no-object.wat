(func $describe (export "regatta_describe") (result i64) (call $text (i32.const 2048) (i32.const 2)))
