(data (i32.const 8192) "{\22ok\22:{\22capacity\22:3,\22reasons\22:[{\22code\22:\22a\22,\22evidence\22:[[\22a\22,\22b\22,\22c\22]]}]}}")
(func $answer (result i64) (call $text (i32.const 8192) (i32.const 73)))
