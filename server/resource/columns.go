package resource

// builtinColumns are the columns of a built-in kind's tables.
func builtinColumns(*Kind) []Column { return nil }
