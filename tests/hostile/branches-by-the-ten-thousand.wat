;; One jump with 65,520 ways to go.
(func $answer
  (block $out (block $in
    (br_table {{65520 × $in }} $out (i32.load (i32.const 264)))))
  (i32.store (i32.const 264) (i32.const 3)))
