;; Neither ok nor err.
(func $answer (i32.store8 (i32.const 256) (i32.const 7)))
