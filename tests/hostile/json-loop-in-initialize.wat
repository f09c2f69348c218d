(func (export "_initialize") (loop $again (br $again)))
