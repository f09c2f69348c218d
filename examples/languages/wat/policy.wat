;; Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
;;
;; Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
;; warming up.
;;
;; The functions have the names that the component model's canonical ABI gives to those of the contract; the host knows
;; their types. Records lie in memory as C lays them out. An instance runs one call and is gone: nothing is ever freed,
;; and what is in memory at the start of a call is what this file says.
(module
  ;; ---- memory
  ;;
  ;;     0  what describe returns     64  what validate returns    128  what decide returns
  ;;   192  its reason               224  its evidence             240  its state
  ;;   248  digits of a number       272  the metric wanted        288  problems, room for 8
  ;;   512  texts, each up to a 0   8192  what the host allocates
  (memory (export "memory") 1)
  (global $heap (mut i32) (i32.const 8192))

  (data (i32.const 512) "tolerant-target\00")
  (data (i32.const 640) "1.0.0\00")
  (data (i32.const 656) "Keeps a metric at its target, within a tolerance.\00")
  ;; A metric that starts with `/` points at the parameter that holds its name.
  (data (i32.const 720) "/metric\00")
  (data (i32.const 736) "/target\00")
  (data (i32.const 752) "/tolerance\00")
  (data (i32.const 768) "\00")
  (data (i32.const 784) "must name a metric\00")
  (data (i32.const 832) "must be a number above 0, of at most 15 digits\00")
  (data (i32.const 896) "must be a number from 0 to 1, of at most 15 digits\00")
  (data (i32.const 960) "must be an object with metric and target, and nothing else but tolerance\00")
  (data (i32.const 1040) "no-data\00")
  (data (i32.const 1056) "there is nothing to go by\00")
  (data (i32.const 1088) "within-tolerance\00")
  (data (i32.const 1120) "the load is close to its target\00")
  (data (i32.const 1152) "above-target\00")
  (data (i32.const 1184) "the load is above its target\00")
  (data (i32.const 1216) "waiting\00")
  (data (i32.const 1232) "the load may come back\00")
  (data (i32.const 1264) "below-target\00")
  (data (i32.const 1280) "the load is below its target\00")
  (data (i32.const 1312) "needed\00")
  (data (i32.const 2048)
    "{\"type\": \"object\", \"properties\": {"
    "\"metric\": {\"type\": \"string\", \"minLength\": 1,"
    " \"description\": \"Name of the metric. It must fall when instances are added.\"},"
    "\"target\": {\"type\": \"number\", \"exclusiveMinimum\": 0, \"description\": \"Value to keep per instance.\"},"
    "\"tolerance\": {\"type\": \"number\", \"minimum\": 0, \"maximum\": 1, \"default\": 0.1,"
    " \"description\": \"Deviation from the target that is left alone, as a share of it.\"}},"
    "\"required\": [\"metric\", \"target\"], \"additionalProperties\": false}\00")

  ;; The host allocates the arguments with this. Everything lies at a multiple of 8.
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32) (local $lacking i32)
    (local.set $at (global.get $heap))
    (global.set $heap (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.set $lacking (i32.sub (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
    (if (i32.gt_s (local.get $lacking) (i32.const 0))
      (then
        (if (i32.eq (i32.const -1)
              (memory.grow (i32.shr_u (i32.add (local.get $lacking) (i32.const 65535)) (i32.const 16))))
          (then unreachable))))
    (memory.copy (local.get $at) (local.get $old) (local.get $old_size))
    (local.get $at))

  ;; Length of a text of this file.
  (func $length (param $text i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $text))
    (block $found
      (loop $next
        (br_if $found (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $next)))
    (i32.sub (local.get $end) (local.get $text)))

  ;; Writes pointer and length of a text of this file.
  (func $text (param $to i32) (param $text i32)
    (i32.store (local.get $to) (local.get $text))
    (i32.store offset=4 (local.get $to) (call $length (local.get $text))))

  (func $same (param $one i32) (param $one_length i32) (param $other i32) (param $other_length i32) (result i32)
    (if (i32.ne (local.get $one_length) (local.get $other_length)) (then (return (i32.const 0))))
    (block $differs
      (loop $next
        (if (i32.eqz (local.get $one_length)) (then (return (i32.const 1))))
        (br_if $differs (i32.ne (i32.load8_u (local.get $one)) (i32.load8_u (local.get $other))))
        (local.set $one (i32.add (local.get $one) (i32.const 1)))
        (local.set $other (i32.add (local.get $other) (i32.const 1)))
        (local.set $one_length (i32.sub (local.get $one_length) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; ---- JSON: reads text that the host has made, so it is valid

  (global $at (mut i32) (i32.const 0))
  (global $end (mut i32) (i32.const 0))
  ;; The string that was read last.
  (global $string_at (mut i32) (i32.const 0))
  (global $string_length (mut i32) (i32.const 0))

  (func $advance (global.set $at (i32.add (global.get $at) (i32.const 1))))

  ;; The next byte, without taking it; 0 at the end.
  (func $here (result i32)
    (if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const 0))))
    (i32.load8_u (global.get $at)))

  ;; The next byte that is no space, without taking it; 0 at the end.
  (func $peek (result i32)
    (loop $next
      (if (i32.and (i32.le_u (call $here) (i32.const 0x20)) (i32.lt_u (global.get $at) (global.get $end)))
        (then (call $advance) (br $next))))
    (call $here))

  ;; Takes a string and undoes its escapes where it lies; 0 if there is none.
  (func $string (result i32)
    (local $to i32) (local $byte i32)
    (if (i32.ne (call $peek) (i32.const 0x22)) (then (return (i32.const 0))))
    (call $advance)
    (local.set $to (global.get $at))
    (global.set $string_at (local.get $to))
    (block $done
      (loop $next
        (local.set $byte (call $here))
        (call $advance)
        (br_if $done (i32.or (i32.eqz (local.get $byte)) (i32.eq (local.get $byte) (i32.const 0x22))))
        (if (i32.eq (local.get $byte) (i32.const 0x5c))
          (then
            ;; \" and \\ stand for themselves. The host escapes control characters too (\n, \u0001), and no metric has
            ;; one in its name: those only need to be stepped over.
            (local.set $byte (call $here))
            (call $advance)))
        (i32.store8 (local.get $to) (local.get $byte))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (br $next)))
    (global.set $string_length (i32.sub (local.get $to) (global.get $string_at)))
    (i32.const 1))

  (func $is_digit (result i32)
    (i32.lt_u (i32.sub (call $here) (i32.const 0x30)) (i32.const 10)))

  ;; Takes a number; NaN, and nothing taken, if there is none. Up to 15 digits and powers of ten up to 22 are exact as
  ;; floats, and so is one multiplication of them; a number of more is NaN too, rather than a little wrong.
  (func $number (result f64)
    (local $negative i32) (local $mantissa i64) (local $digits i32) (local $scale i32)
    (local $exponent i32) (local $minus i32) (local $power f64) (local $value f64)
    (local.set $negative (i32.eq (call $peek) (i32.const 0x2d)))
    (if (i32.eqz (i32.or (local.get $negative) (call $is_digit))) (then (return (f64.const nan))))
    (if (local.get $negative) (then (call $advance)))
    (block $end_of_digits
      (loop $next
        (if (i32.eq (call $here) (i32.const 0x2e))
          (then
            ;; Counts the digits behind the point from here: one more each time around.
            (local.set $minus (i32.const 1))
            (call $advance)))
        (br_if $end_of_digits (i32.eqz (call $is_digit)))
        (local.set $mantissa
          (i64.add (i64.mul (local.get $mantissa) (i64.const 10))
            (i64.extend_i32_u (i32.sub (call $here) (i32.const 0x30)))))
        ;; Zeros in front are no digits.
        (if (i64.ne (local.get $mantissa) (i64.const 0))
          (then (local.set $digits (i32.add (local.get $digits) (i32.const 1)))))
        (local.set $scale (i32.sub (local.get $scale) (local.get $minus)))
        (call $advance)
        (br $next)))
    (if (i32.eq (i32.or (call $here) (i32.const 0x20)) (i32.const 0x65))
      (then
        (call $advance)
        (local.set $minus (i32.eq (call $here) (i32.const 0x2d)))
        (if (i32.eqz (call $is_digit)) (then (call $advance)))
        (loop $next
          (if (call $is_digit)
            (then
              (local.set $exponent
                (i32.add (i32.mul (local.get $exponent) (i32.const 10)) (i32.sub (call $here) (i32.const 0x30))))
              (call $advance)
              (br $next))))
        (local.set $scale
          (select
            (i32.sub (local.get $scale) (local.get $exponent))
            (i32.add (local.get $scale) (local.get $exponent))
            (local.get $minus)))))
    (if (i32.or (i32.gt_u (local.get $digits) (i32.const 15))
          (i32.gt_u (i32.add (local.get $scale) (i32.const 22)) (i32.const 44)))
      (then (return (f64.const nan))))
    (local.set $minus (i32.lt_s (local.get $scale) (i32.const 0)))
    (local.set $power (f64.const 1))
    (loop $next
      (if (local.get $scale)
        (then
          (local.set $power (f64.mul (local.get $power) (f64.const 10)))
          (local.set $scale (i32.add (local.get $scale) (select (i32.const 1) (i32.const -1) (local.get $minus))))
          (br $next))))
    (local.set $value (f64.convert_i64_u (local.get $mantissa)))
    (local.set $value
      (select
        (f64.div (local.get $value) (local.get $power))
        (f64.mul (local.get $value) (local.get $power))
        (local.get $minus)))
    (select (f64.neg (local.get $value)) (local.get $value) (local.get $negative)))

  ;; Takes a value of any kind.
  (func $skip
    (local $depth i32) (local $byte i32)
    (block $done
      (loop $next
        (local.set $byte (call $peek))
        (br_if $done (i32.eqz (local.get $byte)))
        ;; What ends a value at the outermost level is not part of it: `,` `}` `]`.
        (if (i32.eqz (local.get $depth))
          (then (br_if $done (call $ends (local.get $byte)))))
        (if (i32.eq (local.get $byte) (i32.const 0x22))
          (then (drop (call $string)) (br $next)))
        ;; `{` and `[` are `}` and `]` without one bit.
        (if (i32.eq (i32.or (local.get $byte) (i32.const 0x20)) (i32.const 0x7b))
          (then (local.set $depth (i32.add (local.get $depth) (i32.const 1)))))
        (if (i32.eq (i32.or (local.get $byte) (i32.const 0x20)) (i32.const 0x7d))
          (then (local.set $depth (i32.sub (local.get $depth) (i32.const 1)))))
        (call $advance)
        (br $next))))

  (func $ends (param $byte i32) (result i32)
    (i32.or (i32.eq (local.get $byte) (i32.const 0x2c))
      (i32.eq (i32.or (local.get $byte) (i32.const 0x20)) (i32.const 0x7d))))

  ;; ---- parameters

  (global $metric_at (mut i32) (i32.const 0))
  (global $metric_length (mut i32) (i32.const 0))
  (global $target (mut f64) (f64.const 0))
  (global $tolerance (mut f64) (f64.const 0.1))
  (global $problems (mut i32) (i32.const 0))

  ;; A problem, unless `ok`: its path and message are texts of this file. There is room for 8.
  (func $require (param $ok i32) (param $path i32) (param $message i32)
    (local $to i32)
    (if (i32.or (local.get $ok) (i32.ge_u (global.get $problems) (i32.const 8))) (then (return)))
    (local.set $to (i32.add (i32.const 288) (i32.shl (global.get $problems) (i32.const 4))))
    (call $text (local.get $to) (local.get $path))
    (call $text (i32.add (local.get $to) (i32.const 8)) (local.get $message))
    (global.set $problems (i32.add (global.get $problems) (i32.const 1))))

  ;; Whether the string that was read last is a text of this file without its `/`.
  (func $is (param $path i32) (result i32)
    (local.set $path (i32.add (local.get $path) (i32.const 1)))
    (call $same (global.get $string_at) (global.get $string_length) (local.get $path) (call $length (local.get $path))))

  ;; Reads the parameters, and notes all their problems.
  (func $read_params (param $from i32) (param $length i32)
    (local $known i32) (local $seen i32)
    (global.set $at (local.get $from))
    (global.set $end (i32.add (local.get $from) (local.get $length)))
    (block $done
      (br_if $done (i32.ne (call $peek) (i32.const 0x7b)))
      (loop $next
        (call $advance)
        (br_if $done (i32.eqz (call $string)))
        (drop (call $peek))
        (call $advance) ;; the colon
        (local.set $known (i32.const 0))
        (if (call $is (i32.const 720))
          (then
            (local.set $known (i32.const 1))
            (if (call $string)
              (then
                (global.set $metric_at (global.get $string_at))
                (global.set $metric_length (global.get $string_length))))
            (call $require (global.get $metric_length) (i32.const 720) (i32.const 784)))
          (else (if (call $is (i32.const 736))
            (then
              (local.set $known (i32.const 2))
              (global.set $target (call $number))
              (call $require (f64.gt (global.get $target) (f64.const 0)) (i32.const 736) (i32.const 832)))
            (else (if (call $is (i32.const 752))
              (then
                (local.set $known (i32.const 4))
                (global.set $tolerance (call $number))
                (call $require
                  (i32.and (f64.ge (global.get $tolerance) (f64.const 0)) (f64.le (global.get $tolerance) (f64.const 1)))
                  (i32.const 752) (i32.const 896))))))))
        (call $require (local.get $known) (i32.const 768) (i32.const 960))
        (local.set $seen (i32.or (local.get $seen) (local.get $known)))
        ;; What is left of a value of another kind.
        (call $skip)
        (br_if $next (i32.eq (call $peek) (i32.const 0x2c)))))
    (call $require (i32.eq (i32.and (local.get $seen) (i32.const 3)) (i32.const 3)) (i32.const 768) (i32.const 960)))

  ;; ---- the contract

  (func (export "regatta:policy/scaling@0.1.1#describe") (result i32)
    (call $text (i32.const 0) (i32.const 512))
    (call $text (i32.const 8) (i32.const 640))
    (call $text (i32.const 16) (i32.const 656))
    (call $text (i32.const 24) (i32.const 2048))
    ;; One metric, no window.
    (call $text (i32.const 272) (i32.const 720))
    (i32.store offset=32 (i32.const 0) (i32.const 272))
    (i32.store offset=36 (i32.const 0) (i32.const 1))
    ;; The version of the state.
    (i32.store offset=40 (i32.const 0) (i32.const 1))
    (i32.const 0))

  (func (export "regatta:policy/scaling@0.1.1#validate") (param $params i32) (param $length i32) (result i32)
    (call $read_params (local.get $params) (local.get $length))
    (i32.store8 (i32.const 64) (i32.ne (global.get $problems) (i32.const 0)))
    (i32.store offset=4 (i32.const 64) (i32.const 288))
    (i32.store offset=8 (i32.const 64) (global.get $problems))
    (i32.const 64))

  ;; Whole instances for a demand: at least one, and no more than a host accepts. Rounding of floats (1e-9) costs none.
  (func $whole (param $demand f64) (result i32)
    (i32.trunc_f64_u (f64.ceil
      (f64.min (f64.max (f64.sub (local.get $demand) (f64.const 1e-9)) (f64.const 1)) (f64.const 1e6)))))

  ;; Decimal digits, from 264 downwards; returns where they begin.
  (func $digits (param $number i32) (result i32)
    (local $to i32)
    (local.set $to (i32.const 264))
    (loop $next
      (local.set $to (i32.sub (local.get $to) (i32.const 1)))
      (i32.store8 (local.get $to) (i32.add (i32.const 0x30) (i32.rem_u (local.get $number) (i32.const 10))))
      (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
      (br_if $next (local.get $number)))
    (local.get $to))

  ;; The outcome with one reason; the streak is the whole state. The result's first byte stays 0: no error.
  (func $wants (param $capacity i32) (param $streak i32) (param $code i32) (param $why i32) (result i32)
    (i32.store offset=8 (i32.const 128) (local.get $capacity))
    (call $text (i32.const 192) (local.get $code))
    (call $text (i32.const 200) (local.get $why))
    (i32.store offset=48 (i32.const 128) (i32.const 192))
    (i32.store offset=52 (i32.const 128) (i32.const 1))
    (i32.store8 (i32.const 240) (local.get $streak))
    (i32.store offset=56 (i32.const 128) (i32.const 240))
    (i32.store offset=60 (i32.const 128) (i32.const 1))
    (i32.const 128))

  ;; Adds the demand, in whole instances, to the evidence of the reason.
  (func $evidence (param $demand f64)
    (local $digits i32)
    (local.set $digits (call $digits (call $whole (local.get $demand))))
    (call $text (i32.const 224) (i32.const 1312))
    (i32.store offset=8 (i32.const 224) (local.get $digits))
    (i32.store offset=12 (i32.const 224) (i32.sub (i32.const 264) (local.get $digits)))
    (i32.store offset=16 (i32.const 192) (i32.const 224))
    (i32.store offset=20 (i32.const 192) (i32.const 1)))

  ;; Instances in service that the metric says nothing about.
  (global $unmeasured (mut i32) (i32.const 0))

  ;; The sum of the metric, NaN unless it is fresh: no data is not the same as no load.
  (func $sum (param $tick i32) (result f64)
    (local $metric i32) (local $left i32)
    (local.set $metric (i32.load offset=144 (local.get $tick)))
    (local.set $left (i32.load offset=148 (local.get $tick)))
    (block $none
      (loop $next
        (br_if $none (i32.eqz (local.get $left)))
        (if (call $same (i32.load (local.get $metric)) (i32.load offset=4 (local.get $metric))
              (global.get $metric_at) (global.get $metric_length))
          (then
            (br_if $none (i32.load8_u offset=32 (local.get $metric)))
            (global.set $unmeasured
              (i32.add (i32.load offset=108 (local.get $metric)) (i32.load offset=112 (local.get $metric))))
            (return (f64.load offset=40 (local.get $metric)))))
        (local.set $metric (i32.add (local.get $metric) (i32.const 120)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next)))
    (f64.const nan))

  ;; How many ticks in a row were below the target; a state that cannot be read counts as none.
  (func $streak (param $state i32) (param $length i32) (result i32)
    (if (i32.ne (local.get $length) (i32.const 1)) (then (return (i32.const 0))))
    (if (i32.gt_u (i32.load8_u (local.get $state)) (i32.const 3)) (then (return (i32.const 0))))
    (i32.load8_u (local.get $state)))

  ;; The arguments lie at `given`: the tick, at 152 the parameters, at 160 the state.
  (func (export "regatta:policy/scaling@0.1.1#decide") (param $given i32) (result i32)
    (local $desired i32) (local $in_service i32) (local $warming i32) (local $streak i32)
    (local $sum f64) (local $demand f64) (local $tolerance f64) (local $in_force f64)
    (call $read_params (i32.load offset=152 (local.get $given)) (i32.load offset=156 (local.get $given)))
    (local.set $desired (i32.load offset=40 (local.get $given)))
    (local.set $in_service (i32.load offset=60 (local.get $given)))
    (local.set $sum (call $sum (local.get $given)))
    ;; x - x is 0 for every finite number, and NaN for all others.
    (if (i32.or
          (f64.ne (f64.sub (local.get $sum) (local.get $sum)) (f64.const 0))
          (i32.or (i32.eqz (local.get $in_service)) (i32.eqz (local.get $desired))))
      (then (return (call $wants (local.get $desired) (i32.const 0) (i32.const 1040) (i32.const 1056)))))

    ;; How many instances the measured load needs. Those that were never measured, as they have just come into service,
    ;; take their load from the others: to count them as busy would ask for that load twice.
    (local.set $demand (f64.div (local.get $sum) (global.get $target)))
    (local.set $in_force (f64.convert_i32_u (local.get $desired)))
    (local.set $tolerance (f64.add (global.get $tolerance) (f64.const 1e-9)))
    (call $evidence (local.get $demand))
    (if (f64.gt (f64.sub (f64.div (local.get $demand) (local.get $in_force)) (f64.const 1)) (local.get $tolerance))
      (then
        (return (call $wants (call $whole (local.get $demand)) (i32.const 0) (i32.const 1152) (i32.const 1184)))))

    ;; Towards a scale-in they count as busy.
    (local.set $demand (f64.add (local.get $demand) (f64.convert_i32_u (global.get $unmeasured))))
    (call $evidence (local.get $demand))
    (if (f64.le (f64.sub (f64.const 1) (f64.div (local.get $demand) (local.get $in_force))) (local.get $tolerance))
      (then (return (call $wants (local.get $desired) (i32.const 0) (i32.const 1088) (i32.const 1120)))))
    ;; Pending, creating, booting, initializing.
    (local.set $warming
      (i32.add
        (i32.add (i32.load offset=44 (local.get $given)) (i32.load offset=48 (local.get $given)))
        (i32.add (i32.load offset=52 (local.get $given)) (i32.load offset=56 (local.get $given)))))
    (local.set $streak
      (call $streak (i32.load offset=160 (local.get $given)) (i32.load offset=164 (local.get $given))))
    (if (i32.lt_u (local.get $streak) (i32.const 3))
      (then (local.set $streak (i32.add (local.get $streak) (i32.const 1)))))
    (if (i32.or (i32.lt_u (local.get $streak) (i32.const 3)) (local.get $warming))
      (then (return (call $wants (local.get $desired) (local.get $streak) (i32.const 1216) (i32.const 1232)))))
    (call $wants (call $whole (local.get $demand)) (i32.const 0) (i32.const 1264) (i32.const 1280)))
)
