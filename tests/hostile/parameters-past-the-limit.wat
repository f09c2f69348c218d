(func (param {{1001 × i64 }}))
