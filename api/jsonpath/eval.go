package jsonpath

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// maxResults bounds what a path gives: recursive steps multiply.
const maxResults = 1 << 20

// Execute writes the template with its expressions evaluated on data.
func (t *Template) Execute(w io.Writer, data any) error {
	return execute(t.parts, data, func(results []any) error {
		texts := make([]string, len(results))
		for i, v := range results {
			var err error
			if texts[i], err = text(v); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, strings.Join(texts, " "))
		return err
	})
}

// Find returns what the template's expressions give, in order.
func (t *Template) Find(data any) (all []any, err error) {
	err = execute(t.parts, data, func(results []any) error {
		all = append(all, results...)
		return nil
	})
	return all, err
}

func execute(parts []part, data any, emit func([]any) error) error {
	for _, p := range parts {
		if p.text != "" {
			if err := emit([]any{p.text}); err != nil {
				return err
			}
			continue
		}
		results, err := walk(p.path, []any{data})
		if err != nil {
			return err
		}
		if !p.loop {
			if err := emit(results); err != nil {
				return err
			}
			continue
		}
		for _, v := range results {
			if err := execute(p.body, v, emit); err != nil {
				return err
			}
		}
	}
	return nil
}

// text is a value as it is printed: objects and lists as JSON.
func text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "null", nil
	case map[string]any, []any:
		b, err := json.Marshal(v)
		return string(b), err
	}
	return fmt.Sprint(v), nil
}

func walk(steps []step, in []any) ([]any, error) {
	for _, s := range steps {
		var err error
		if in, err = s.apply(in); err != nil {
			return nil, err
		}
		if len(in) > maxResults {
			return nil, fmt.Errorf("more than %d results", maxResults)
		}
	}
	return in, nil
}

func (f field) apply(in []any) (out []any, err error) {
	for _, v := range in {
		if m, ok := v.(map[string]any); ok {
			if x, ok := m[string(f)]; ok {
				out = append(out, x)
			}
		}
	}
	return out, nil
}

func (b bracketed) apply(in []any) (out []any, err error) {
	for _, v := range in {
		some, _ := field(b.name).apply([]any{v})
		if len(some) == 0 {
			if some, err = walk(b.path, []any{v}); err != nil {
				return nil, err
			}
		}
		out = append(out, some...)
	}
	return out, nil
}

func (l literal) apply(in []any) ([]any, error) {
	out := make([]any, len(in))
	for i := range out {
		out[i] = l.value
	}
	return out, nil
}

// children are the elements of a list, or the values of an object by their names.
func children(v any) (out []any) {
	switch v := v.(type) {
	case []any:
		return v
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			out = append(out, v[name])
		}
	}
	return out
}

func (wildcard) apply(in []any) (out []any, err error) {
	for _, v := range in {
		out = append(out, children(v)...)
	}
	return out, nil
}

// apply gives the values and all below them that have parts.
func (r recursive) apply(in []any) (out []any, err error) {
	for _, v := range in {
		below := children(v)
		if s, ok := v.(string); len(below) == 0 && (!ok || s == "") {
			continue
		}
		out = append(out, v)
		deeper, _ := r.apply(below)
		out = append(out, deeper...)
	}
	return out, nil
}

func (s slice) apply(in []any) (out []any, err error) {
	for _, v := range in {
		if v == nil {
			continue
		}
		list, ok := v.([]any)
		if !ok {
			return nil, fmt.Errorf("%s is not a list", kind(v))
		}
		n := len(list)
		from, to := s.from, s.to
		if from < 0 {
			from += n
		}
		switch {
		case s.one:
			to = from + 1
		case !s.hasTo:
			to = n
		case to < 0:
			to += n
		}
		if from == to {
			continue
		}
		if from < 0 || from >= n {
			return nil, fmt.Errorf("array index out of bounds: index %d, length %d", from, n)
		}
		if to < 0 || to > n {
			return nil, fmt.Errorf("array index out of bounds: index %d, length %d", to-1, n)
		}
		if from > to {
			return nil, fmt.Errorf("starting index %d is greater than ending index %d", from, to)
		}
		for i := from; i < to; i += s.step {
			out = append(out, list[i])
		}
	}
	return out, nil
}

func (u union) apply(in []any) (out []any, err error) {
	for _, steps := range u {
		some, err := walk(steps, in)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

func (f filter) apply(in []any) (out []any, err error) {
	for _, v := range in {
		list, ok := v.([]any)
		if !ok {
			return nil, fmt.Errorf("%s is not a list and cannot be filtered", kind(v))
		}
		for _, x := range list {
			pass, err := f.pass(x)
			if err != nil {
				return nil, err
			}
			if pass {
				out = append(out, x)
			}
		}
	}
	return out, nil
}

func (f filter) pass(x any) (bool, error) {
	left, err := walk(f.left, []any{x})
	if err != nil || f.op == "" {
		return err == nil && len(left) > 0, nil
	}
	right, err := walk(f.right, []any{x})
	if err != nil {
		return false, err
	}
	if len(left) > 1 || len(right) > 1 {
		return false, fmt.Errorf("can only compare one element at a time")
	}
	if len(left) == 0 || len(right) == 0 {
		return false, nil
	}
	order, ok := compare(left[0], right[0])
	switch f.op {
	case "==":
		return ok && order == 0, nil
	case "!=":
		return !ok || order != 0, nil
	case "<":
		return ok && order < 0, nil
	case "<=":
		return ok && order <= 0, nil
	case ">":
		return ok && order > 0, nil
	}
	return ok && order >= 0, nil
}

// compare orders two values of the same kind; ok is false if they are not.
func compare(a, b any) (order int, ok bool) {
	if x, isText := a.(string); isText {
		y, ok := b.(string)
		return strings.Compare(x, y), ok
	}
	if x, isBool := a.(bool); isBool {
		y, ok := b.(bool)
		if x == y {
			return 0, ok
		}
		return 1, ok
	}
	if x, isInt := a.(int64); isInt {
		if y, isInt := b.(int64); isInt {
			return cmp.Compare(x, y), true
		}
	}
	x, xok := float(a)
	y, yok := float(b)
	return cmp.Compare(x, y), xok && yok
}

func float(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	case float64:
		return n, true
	case json.Number:
		f, err := n.Float64()
		return f, err == nil
	}
	return 0, false
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any:
		return "an object"
	case string:
		return "a string"
	case bool:
		return "a truth value"
	}
	return "a number"
}
