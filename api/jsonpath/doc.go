// Package jsonpath evaluates kubectl's JSONPath templates on decoded JSON.
//
// A template is text with expressions in braces:
//
//	{.metadata.name}                    a field; also {$.metadata.name}, {['metadata'].name}
//	{.metadata.labels.app\.io/name}     a backslash before a dot of a name
//	{.items[0]}  {.items[-1:]}          an element, a slice (start:end:step)
//	{.items[*].name}  {..name}          all elements or fields, at any depth
//	{.spec['name','uid']}  {[0,2]}      several
//	{.items[?(@.phase=="Running")]}     those that compare: == != < <= > >=, or that have a field
//	{range .items[*]}{.name}{"\n"}{end} a loop; {"…"} is text with escapes
//
// Data are map[string]any, []any, string, bool, numbers (json.Number too) and nil. A field that is
// absent gives nothing, as with kubectl's default; the fields of an object come
// in the order of their names. An index that a list does not have is an error.
// Values of unlike types are unequal, and neither is less than the other.
//
// parse.go reads templates, eval.go evaluates them.
package jsonpath
