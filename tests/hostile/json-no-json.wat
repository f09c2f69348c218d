(data (i32.const 8192) "three")
(func $answer (result i64) (call $text (i32.const 8192) (i32.const 5)))
