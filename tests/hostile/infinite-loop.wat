(func $answer (loop $again (br $again)))
