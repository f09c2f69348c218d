(data (i32.const 8192) "{\22ok\22:{\22capacity\22:1e999}}")
(func $answer (result i64) (call $text (i32.const 8192) (i32.const 25)))
