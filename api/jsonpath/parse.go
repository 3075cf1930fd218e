package jsonpath

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxTemplate is the longest template, in bytes: one that somebody typed.
const maxTemplate = 64 << 10

// Template is a parsed template. It may be used by several goroutines.
type Template struct{ parts []part }

// part is text, a path whose results are printed, or a loop over them.
type part struct {
	text string
	path []step
	loop bool
	body []part // of a loop
}

// step goes from values to others.
type step interface {
	apply(in []any) ([]any, error)
}

// The steps of a path.
type (
	field     string
	bracketed struct { // ['name'], which may also be a path: kubectl reads it as one
		name string
		path []step
	}
	wildcard  struct{}
	recursive struct{}
	literal   struct{ value any }
	slice     struct {
		from, to, step int
		hasFrom, hasTo bool
		one            bool // an index
	}
	union  [][]step
	filter struct {
		left, right []step
		op          string // "" : left exists
	}
)

// Parse reads a template.
func Parse(text string) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("template of %d bytes; %d are the most", len(text), maxTemplate)
	}
	p := &parser{rest: text}
	parts, ended, err := p.parts(0)
	if err == nil && ended {
		err = fmt.Errorf("{end} without {range}")
	}
	return &Template{parts}, err
}

type parser struct{ rest string }

// parts reads up to the end of the template, or of the loop it stands in.
func (p *parser) parts(depth int) (out []part, ended bool, err error) {
	if depth > 50 {
		return nil, false, fmt.Errorf("loops deeper than 50")
	}
	for p.rest != "" {
		text, rest, open := strings.Cut(p.rest, "{")
		if text != "" {
			out = append(out, part{text: text})
		}
		if p.rest = rest; !open {
			p.rest = ""
			break
		}
		name := p.identifier()
		if name == "end" {
			if _, err := p.path(); err != nil {
				return nil, false, err
			}
			return out, true, nil
		}
		if name != "" && name != "range" {
			return nil, false, fmt.Errorf("unrecognized identifier %s", name)
		}
		next := part{loop: name == "range"}
		if next.path, err = p.path(); err != nil {
			return nil, false, err
		}
		if next.loop {
			if next.body, ended, err = p.parts(depth + 1); err != nil {
				return nil, false, err
			}
			if !ended {
				return nil, false, fmt.Errorf("{range} without {end}")
			}
		}
		out = append(out, next)
	}
	return out, false, nil
}

// identifier takes a word from the beginning of an expression.
func (p *parser) identifier() string {
	s := strings.TrimLeft(p.rest, " ")
	n := 0
	for n < len(s) && (s[n] >= 'a' && s[n] <= 'z') {
		n++
	}
	if word := s[:n]; word != "true" && word != "false" {
		p.rest = s[n:]
		return word
	}
	return ""
}

// path reads the steps up to the closing brace.
func (p *parser) path() ([]step, error) {
	text, rest, err := until(p.rest, '}')
	if err != nil {
		return nil, err
	}
	p.rest = rest
	return parsePath(text)
}

// until cuts s at the first byte c outside quotes and brackets.
func until(s string, c byte) (before, after string, err error) {
	var quote byte
	depth := 0
	for i := 0; i < len(s); i++ {
		switch x := s[i]; {
		case x == '\\':
			i++
		case quote != 0:
			if x == quote {
				quote = 0
			}
		case x == '"' || x == '\'':
			quote = x
		case x == c && depth == 0:
			return s[:i], s[i+1:], nil
		case x == '[' || x == '(':
			depth++
		case x == ']' || x == ')':
			depth--
		}
	}
	return "", "", fmt.Errorf("%q has no closing %q", s, c)
}

// parsePath reads the inside of a pair of braces, or a part of a filter.
func parsePath(s string) (steps []step, err error) {
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		var next step
		switch {
		case s[0] == '@' || s[0] == '$':
			s = s[1:]
			continue
		case strings.HasPrefix(s, ".."):
			if s = strings.TrimPrefix(s[2:], "."); strings.HasPrefix(s, ".") {
				return nil, fmt.Errorf("more than three dots in a row")
			}
			next = recursive{}
			if s != "" && s[0] != '[' && s[0] != ' ' {
				s = "." + s
			}
		case s[0] == '.':
			var name string
			if name, s = fieldName(s[1:]); name == "*" {
				next = wildcard{}
			} else if name == "" {
				continue
			} else {
				next = field(name)
			}
		case s[0] == '[':
			var inside string
			if inside, s, err = until(s[1:], ']'); err != nil {
				return nil, err
			}
			if next, err = parseBrackets(strings.TrimSpace(inside)); err != nil {
				return nil, err
			}
		case s[0] == '"' || s[0] == '\'':
			var text string
			if text, s, err = quoted(s); err != nil {
				return nil, err
			}
			next = literal{text}
		default:
			word := s
			if i := strings.IndexAny(s, " []@$"); i >= 0 {
				word = s[:i]
			}
			s = s[len(word):]
			if next, err = constant(word); err != nil {
				return nil, err
			}
		}
		steps = append(steps, next)
	}
	return steps, nil
}

// fieldName takes a name, in which a backslash keeps the next byte.
func fieldName(s string) (name, rest string) {
	var b strings.Builder
	i := 0
	for ; i < len(s) && !strings.ContainsRune(" .,[]$@{}", rune(s[i])); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), s[i:]
}

// quoted takes a string in quotes, with Go's escapes.
func quoted(s string) (text, rest string, err error) {
	q := s[0]
	for i := 1; i < len(s); i++ {
		if s[i] == '\\' {
			i++
			continue
		}
		if s[i] != q {
			continue
		}
		inner := s[1:i]
		if q == '\'' {
			inner = strings.ReplaceAll(strings.ReplaceAll(inner, `\'`, `'`), `"`, `\"`)
		}
		text, err = strconv.Unquote(`"` + inner + `"`)
		if err != nil {
			err = fmt.Errorf("bad text %s", s[:i+1])
		}
		return text, s[i+1:], err
	}
	return "", "", fmt.Errorf("%s is not closed", s)
}

func constant(word string) (step, error) {
	switch word {
	case "true", "false":
		return literal{word == "true"}, nil
	}
	if n, err := strconv.ParseInt(word, 10, 64); err == nil {
		return literal{n}, nil
	}
	if f, err := strconv.ParseFloat(word, 64); err == nil {
		return literal{f}, nil
	}
	return nil, fmt.Errorf("unrecognized identifier %s", word)
}

var (
	sliceForm   = regexp.MustCompile(`^(-?\d*)(?::(-?\d*))?(?::(-?\d*))?$`)
	compareForm = regexp.MustCompile(`^([^!<>=]+)([!<>=]+)(.+)$`)
)

// parseBrackets reads what stands between brackets.
func parseBrackets(s string) (step, error) {
	if strings.HasPrefix(s, "?(") && strings.HasSuffix(s, ")") {
		return parseFilter(s[2 : len(s)-1])
	}
	var all union
	for {
		text, rest, last := until(s, ',')
		if last != nil {
			text = s
		}
		one, err := parseElement(strings.TrimSpace(text))
		switch {
		case err != nil:
			return nil, err
		case last != nil && len(all) == 0:
			return one, nil
		}
		if all = append(all, []step{one}); last != nil {
			return all, nil
		}
		s = rest
	}
}

func parseElement(s string) (step, error) {
	switch {
	case s == "*":
		return wildcard{}, nil
	case s != "" && (s[0] == '"' || s[0] == '\''):
		if len(s) < 2 || s[len(s)-1] != s[0] {
			return nil, fmt.Errorf("invalid array index %s", s)
		}
		name := s[1 : len(s)-1]
		path, err := parsePath("." + name)
		return bracketed{name, path}, err
	}
	m := sliceForm.FindStringSubmatch(s)
	if m == nil || s == "" {
		return nil, fmt.Errorf("invalid array index %s", s)
	}
	out := slice{step: 1, one: !strings.Contains(s, ":")}
	for i, to := range []*int{&out.from, &out.to, &out.step} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return nil, fmt.Errorf("invalid array index %s", s)
		}
		*to = n
	}
	out.hasFrom, out.hasTo = m[1] != "", m[2] != ""
	if out.step <= 0 {
		return nil, fmt.Errorf("step must be > 0")
	}
	return out, nil
}

func parseFilter(s string) (step, error) {
	m := compareForm.FindStringSubmatch(s)
	if m == nil {
		left, err := parsePath(s)
		return filter{left: left}, err
	}
	switch m[2] {
	case "==", "!=", "<", "<=", ">", ">=":
	default:
		return nil, fmt.Errorf("unrecognized filter operator %s", m[2])
	}
	left, err := parsePath(m[1])
	if err != nil {
		return nil, err
	}
	right, err := parsePath(m[3])
	return filter{left: left, right: right, op: m[2]}, err
}
