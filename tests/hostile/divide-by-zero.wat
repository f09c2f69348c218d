(func $answer (i32.store (i32.const 264) (i32.div_u (i32.const 1) (i32.load (i32.const 264)))))
