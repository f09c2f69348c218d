(component (import "host:escape/shell@1.0.0" (instance (export "run" (func)))))
