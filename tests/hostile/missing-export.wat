(func $decide (param i32) (result i32) (i32.const 256))
(func $validate (param i32 i32) (result i32) (i32.const 128))
