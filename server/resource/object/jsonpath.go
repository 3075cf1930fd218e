package object

import (
	"fmt"
	"strconv"
	"strings"
)

// Path is a compiled JSONPath of the subset that printer columns, selectable
// fields and scale paths use: .a.b, .a\.b, ['a'], [3], [*], [?(@.type=="Ready")].
type Path []step

type step struct {
	name   string
	index  int
	kind   stepKind
	filter Path   // of a filter: what is compared
	op     string // ==, != or empty: the path exists
	want   string
}

type stepKind uint8

const (
	stepName stepKind = iota
	stepIndex
	stepAll
	stepFilter
)

// ParsePath compiles a path; surrounding braces are allowed, as kubectl has them.
func ParsePath(s string) (Path, error) {
	s = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(s), "{"), "}")
	s = strings.TrimPrefix(s, "$")
	var out Path
	for s != "" {
		switch {
		case s[0] == '.':
			name, rest := plainName(s[1:])
			if name == "" {
				if rest == "" || rest[0] == '[' {
					s = rest
					continue
				}
				return nil, fmt.Errorf("path: a name is missing before %q", rest)
			}
			if name == "*" {
				out = append(out, step{kind: stepAll})
			} else {
				out = append(out, step{name: name})
			}
			s = rest
		case s[0] == '[':
			end := closing(s)
			if end < 0 {
				return nil, fmt.Errorf("path: %q does not end", s)
			}
			st, err := bracket(strings.TrimSpace(s[1:end]))
			if err != nil {
				return nil, err
			}
			out, s = append(out, st), s[end+1:]
		default:
			return nil, fmt.Errorf("path: %q does not begin with . or [", s)
		}
	}
	return out, nil
}

func plainName(s string) (name, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == '.' || s[i] == '[':
			return b.String(), s[i:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}

// closing is the index of the bracket that closes s[0]; quotes are heeded.
func closing(s string) int {
	depth, quote := 0, byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '[':
			depth++
		case c == ']':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func bracket(s string) (step, error) {
	switch {
	case s == "*":
		return step{kind: stepAll}, nil
	case len(s) >= 2 && (s[0] == '\'' || s[0] == '"') && s[len(s)-1] == s[0]:
		return step{name: s[1 : len(s)-1]}, nil
	case strings.HasPrefix(s, "?(") && strings.HasSuffix(s, ")"):
		return filter(strings.TrimSpace(s[2 : len(s)-1]))
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return step{}, fmt.Errorf("path: [%s] is not understood", s)
	}
	return step{kind: stepIndex, index: n}, nil
}

func filter(s string) (step, error) {
	st := step{kind: stepFilter}
	left := s
	for _, op := range []string{"==", "!="} {
		if l, r, ok := strings.Cut(s, op); ok {
			left, st.op = l, op
			st.want = strings.Trim(strings.TrimSpace(r), `'"`)
			break
		}
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(left), "@")
	if !ok {
		return st, fmt.Errorf("path: the filter %q does not begin with @", s)
	}
	var err error
	st.filter, err = ParsePath(rest)
	return st, err
}

// Values returns what the path leads to.
func (p Path) Values(v any) []any {
	if len(p) == 0 {
		if v == nil {
			return nil
		}
		return []any{v}
	}
	rest := p[1:]
	var out []any
	switch st := &p[0]; st.kind {
	case stepName:
		if o, ok := v.(Object); ok && o[st.name] != nil {
			return rest.Values(o[st.name])
		}
	case stepIndex:
		if l, ok := v.([]any); ok {
			i := st.index
			if i < 0 {
				i += len(l)
			}
			if i >= 0 && i < len(l) {
				return rest.Values(l[i])
			}
		}
	default:
		for _, e := range Elements(v) {
			if st.kind == stepAll || st.holds(e) {
				out = append(out, rest.Values(e)...)
			}
		}
	}
	return out
}

func (s *step) holds(v any) bool {
	found := s.filter.Values(v)
	if s.op == "" || len(found) == 0 {
		return s.op == "" && len(found) > 0
	}
	return (Text(found[0]) == s.want) == (s.op == "==")
}

// Names returns the path as plain names; ok is false if it has other steps.
func (p Path) Names() (names []string, ok bool) {
	for i := range p {
		if p[i].kind != stepName {
			return nil, false
		}
		names = append(names, p[i].name)
	}
	return names, true
}

// Text is a value as a person reads it.
func Text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return string(AppendValue(nil, v))
}
