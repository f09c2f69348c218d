;; A name that is none, no version, a schema that is no JSON, and a metric
;; without a name looked at for ten thousand years.
(data (i32.const 1104) "Not A Name")
(data (i32.const 1120) "{oops")
(func $describe (export "regatta:policy/scaling@0.1.0#describe") (result i32)
  (call $string (i32.const 0) (i32.const 1104) (i32.const 10))
  (call $string (i32.const 24) (i32.const 1120) (i32.const 5))
  (call $string (i32.const 32) (i32.const 2048) (i32.const 1))
  (i64.store (i32.const 2056) (i64.const 315576000000000))
  (i32.const 0))
