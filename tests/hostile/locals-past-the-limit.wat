(func $answer (local {{50001 × i64 }}))
