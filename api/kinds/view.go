package kinds

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// View reads parts of an object by their paths. What is absent, or of another
// type than asked for, reads as the zero value: nothing stored can be relied on.
type View map[string]any

// At returns what is at a path of object fields separated by dots; nil if there
// is nothing.
func (v View) At(path string) any {
	var x any = map[string]any(v)
	for name := range strings.SplitSeq(path, ".") {
		m, _ := x.(map[string]any)
		if x = m[name]; x == nil {
			return nil
		}
	}
	return x
}

// Text is a string at a path.
func (v View) Text(path string) string { s, _ := v.At(path).(string); return s }

// Int is a number at a path, without its fraction.
func (v View) Int(path string) int64 {
	switch n := v.At(path).(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	}
	return 0
}

// Flag is a truth value at a path.
func (v View) Flag(path string) bool { b, _ := v.At(path).(bool); return b }

// Sub is an object at a path; nil if there is none.
func (v View) Sub(path string) View { m, _ := v.At(path).(map[string]any); return m }

// List is the objects of a list at a path.
func (v View) List(path string) []View {
	list, _ := v.At(path).([]any)
	out := make([]View, len(list))
	for i, x := range list {
		m, _ := x.(map[string]any)
		out[i] = m
	}
	return out
}

// Texts is the strings of a list at a path.
func (v View) Texts(path string) []string {
	list, _ := v.At(path).([]any)
	out := make([]string, 0, len(list))
	for _, x := range list {
		out = append(out, fmt.Sprint(x))
	}
	return out
}

// Size is the number of elements of the list or object at a path.
func (v View) Size(path string) int {
	switch x := v.At(path).(type) {
	case []any:
		return len(x)
	case map[string]any:
		return len(x)
	}
	return 0
}

// Time is a time at a path; the zero time if there is none.
func (v View) Time(path string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, v.Text(path))
	return t
}

// Label, Annotation: their names have dots, so that At does not reach them.

// Label is the value of a label.
func (v View) Label(name string) string { s, _ := v.Sub("metadata.labels")[name].(string); return s }

// Annotation is the value of an annotation.
func (v View) Annotation(name string) string {
	s, _ := v.Sub("metadata.annotations")[name].(string)
	return s
}

// Condition is the first status condition of a type; nil if there is none.
func (v View) Condition(name string) View { return v.typed("status.conditions", name) }

// typed is the first object of a type in a list; nil if there is none.
func (v View) typed(list, name string) View {
	for _, c := range v.List(list) {
		if c.Text("type") == name {
			return c
		}
	}
	return nil
}

// or is s, or what stands for nothing.
func or(s, nothing string) string {
	if s == "" {
		return nothing
	}
	return s
}

const none = "<none>"

// pairs prints a map as k=v,k=v by ascending key.
func pairs(m View) string {
	out := make([]string, 0, len(m))
	for k, x := range m {
		out = append(out, fmt.Sprintf("%s=%v", k, x))
	}
	slices.Sort(out)
	return or(strings.Join(out, ","), none)
}

// selector prints a label selector: its labels and its expressions by key.
func selector(s View) string {
	type term struct{ key, text string }
	var terms []term
	for k, x := range s.Sub("matchLabels") {
		terms = append(terms, term{k, fmt.Sprintf("%s=%v", k, x)})
	}
	for _, e := range s.List("matchExpressions") {
		key, text := e.Text("key"), ""
		values := e.Texts("values")
		slices.Sort(values)
		switch op := e.Text("operator"); op {
		case "Exists":
			text = key
		case "DoesNotExist":
			text = "!" + key
		default:
			text = fmt.Sprintf("%s %s (%s)", key, strings.ToLower(op), strings.Join(values, ","))
		}
		terms = append(terms, term{key, text})
	}
	sort.SliceStable(terms, func(a, b int) bool { return terms[a].key < terms[b].key })
	out := make([]string, len(terms))
	for i, t := range terms {
		out[i] = t.text
	}
	return strings.Join(out, ",")
}

// few prints the first of many.
func few(list []string, n, total int, sep string) string {
	if total <= n {
		return strings.Join(list, sep)
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(list[:min(n, len(list))], sep), total-n)
}

// Age is a span of time as kubectl prints it: two units at most, fewer the
// longer it is.
func Age(d time.Duration) string {
	s := int64(d / time.Second)
	m, h := s/60, s/3600
	days := h / 24
	two := func(a int64, unit string, b int64, small string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, unit)
		}
		return fmt.Sprintf("%d%s%d%s", a, unit, b, small)
	}
	switch {
	case s < -1:
		return "<invalid>"
	case s < 120:
		return fmt.Sprintf("%ds", max(s, 0))
	case m < 10:
		return two(m, "m", s%60, "s")
	case h < 3:
		return fmt.Sprintf("%dm", m)
	case h < 8:
		return two(h, "h", m%60, "m")
	case h < 48:
		return fmt.Sprintf("%dh", h)
	case days < 8:
		return two(days, "d", h%24, "h")
	case days < 730:
		return fmt.Sprintf("%dd", days)
	case days < 8*365:
		return two(days/365, "y", days%365, "d")
	}
	return fmt.Sprintf("%dy", days/365)
}
