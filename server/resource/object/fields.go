package object

import (
	"encoding/json"
	"iter"
	"strconv"
)

// Get returns the value at a path of names; nil when there is none.
func Get(o Object, path ...string) any {
	var v any = o
	for _, name := range path {
		below, ok := v.(Object)
		if !ok {
			return nil
		}
		v = below[name]
	}
	return v
}

// String returns the string at a path; empty when there is none.
func String(o Object, path ...string) string {
	s, _ := Get(o, path...).(string)
	return s
}

// Int returns the whole number at a path.
func Int(o Object, path ...string) (int64, bool) { return Whole(Get(o, path...)) }

// Whole is the value of a whole number in any of its forms.
func Whole(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case int:
		return int64(v), true
	case int64:
		return v, true
	case float64:
		return int64(v), v == float64(int64(v))
	}
	return 0, false
}

// Map returns the object at a path; nil when there is none.
func Map(o Object, path ...string) Object {
	m, _ := Get(o, path...).(Object)
	return m
}

// List returns the list at a path; nil when there is none.
func List(o Object, path ...string) []any {
	l, _ := Get(o, path...).([]any)
	return l
}

// Strings returns the strings of the list at a path.
func Strings(o Object, path ...string) []string {
	var out []string
	for _, v := range List(o, path...) {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// Set changes o: it puts v at a path, making the objects on the way. Something
// else on the way is replaced.
func Set(o Object, v any, path ...string) {
	for _, name := range path[:len(path)-1] {
		below, ok := o[name].(Object)
		if !ok {
			below = Object{}
			o[name] = below
		}
		o = below
	}
	o[path[len(path)-1]] = v
}

// Default changes o: it puts v at a path where there is nothing. The objects on
// the way must be there; where one is not, nothing happens.
func Default(o Object, v any, path ...string) {
	for _, name := range path[:len(path)-1] {
		below, ok := o[name].(Object)
		if !ok {
			return
		}
		o = below
	}
	if last := path[len(path)-1]; o[last] == nil {
		o[last] = v
	}
}

// Remove changes o: nothing is at path afterwards.
func Remove(o Object, path ...string) {
	for _, name := range path[:len(path)-1] {
		below, ok := o[name].(Object)
		if !ok {
			return
		}
		o = below
	}
	delete(o, path[len(path)-1])
}

// Anys makes a decoded list of strings.
func Anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// Elements yields what a list or an object has, each with its index or name.
func Elements(v any) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		switch v := v.(type) {
		case []any:
			for i, e := range v {
				if !yield(strconv.Itoa(i), e) {
					return
				}
			}
		case Object:
			for _, name := range sortedNames(v) {
				if !yield(name, v[name]) {
					return
				}
			}
		}
	}
}

// Sorted yields a map in the order of its names.
func Sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, name := range sortedNames(m) {
			if !yield(name, m[name]) {
				return
			}
		}
	}
}
