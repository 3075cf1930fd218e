package object

import (
	"fmt"
	"strings"
)

// ParseNames reads a path of plain names, as definitions write those of scale and
// of selectable fields: .spec.replicas, with a backslash before a dot of a name.
func ParseNames(path string) ([]string, error) {
	rest, ok := strings.CutPrefix(path, ".")
	if !ok || rest == "" || strings.ContainsAny(rest, "[]{}*") {
		return nil, fmt.Errorf("%q is not a path of names, such as .spec.replicas", path)
	}
	var names []string
	var name strings.Builder
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '\\' && i+1 < len(rest):
			i++
			name.WriteByte(rest[i])
		case c == '.':
			names = append(names, name.String())
			name.Reset()
		default:
			name.WriteByte(c)
		}
	}
	names = append(names, name.String())
	for _, n := range names {
		if n == "" {
			return nil, fmt.Errorf("%q has an empty name", path)
		}
	}
	return names, nil
}

// Text is a value as a person reads it.
func Text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return string(AppendValue(nil, v))
}
