;; More core instances than a call may have.
(component
  (core module $m (memory 1) (table 1 funcref) (func (export "f") (result i32) (i32.const 3)))
  (core instance $i (instantiate $m))
  {{100 × (core instance (instantiate $m)) }}
  (func $f (result u32) (canon lift (core func $i "f")))
  (instance $scaling (export "describe" (func $f)) (export "validate" (func $f)) (export "decide" (func $f)))
  (export "regatta:policy/scaling@0.1.0" (instance $scaling)))
