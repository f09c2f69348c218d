(func $answer (unreachable))
