(data (i32.const 131070) "two bytes too far")
