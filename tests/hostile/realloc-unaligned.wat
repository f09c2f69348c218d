;; Memory at an odd address, for records that need multiples of 8.
(func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4097))
