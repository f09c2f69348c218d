;; All arguments at address 0, over whatever is there.
(func $alloc (export "regatta_alloc") (param i32) (result i32) (i32.const 0))
