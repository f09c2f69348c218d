module tolerant-target

go 1.24
