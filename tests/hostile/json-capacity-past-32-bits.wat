;; 2^32 + 3, which a cast would make 3.
(data (i32.const 8192) "{\22ok\22:{\22capacity\22:4294967299}}")
(func $answer (result i64) (call $text (i32.const 8192) (i32.const 30)))
