package object

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Object is a decoded object or a part of one.
type Object = map[string]any

// first are the fields that come first at the top of an object: readers of
// stored bytes find the kind and the metadata without reading on.
var first = []string{"apiVersion", "kind", "metadata"}

// Encode writes an object as it is stored: compact, apiVersion, kind and metadata
// first, all other names in byte order. Equal objects have equal bytes.
func Encode(o Object) []byte {
	b := append(make([]byte, 0, 512), '{')
	for _, name := range first {
		if v, ok := o[name]; ok {
			b = appendMember(b, name, v)
		}
	}
	for _, name := range sortedNames(o) {
		if !slices.Contains(first, name) {
			b = appendMember(b, name, o[name])
		}
	}
	return append(b, '}')
}

func appendMember(b []byte, name string, v any) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(AppendString(b, name), ':')
	return AppendValue(b, v)
}

// AppendValue appends any decoded value, names in byte order.
func AppendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return AppendString(b, v)
	case bool:
		return strconv.AppendBool(b, v)
	case json.Number:
		return append(b, v...)
	case int:
		return strconv.AppendInt(b, int64(v), 10)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case uint64:
		return strconv.AppendUint(b, v, 10)
	case float64:
		return appendFloat(b, v)
	case Object:
		b = append(b, '{')
		for _, name := range sortedNames(v) {
			b = appendMember(b, name, v[name])
		}
		return append(b, '}')
	case map[string]string:
		b = append(b, '{')
		for _, name := range sortedNames(v) {
			b = appendMember(b, name, v[name])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendValue(b, e)
		}
		return append(b, ']')
	case []string:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendString(b, e)
		}
		return append(b, ']')
	}
	panic(fmt.Sprintf("object: a value of type %T is no part of an object", v))
}

// appendFloat writes whole numbers without a fraction, as they came.
func appendFloat(b []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.AppendInt(b, int64(f), 10)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

const hexDigits = "0123456789abcdef"

// AppendString appends a JSON string. Only what JSON demands is escaped.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			from = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(append(b, s[from:i]...), `\ufffd`...)
			i++
			from = i
			continue
		}
		i += size
	}
	return append(append(b, s[from:]...), '"')
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Copy returns a deep copy of a value.
func Copy[V any](v V) V {
	out, _ := copyValue(v).(V)
	return out
}

func copyValue(v any) any {
	switch v := v.(type) {
	case Object:
		if v == nil {
			return v
		}
		o := make(Object, len(v))
		for name, e := range v {
			o[name] = copyValue(e)
		}
		return o
	case []any:
		if v == nil {
			return v
		}
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = copyValue(e)
		}
		return list
	}
	return v // strings, numbers, booleans and nil never change
}

// Equal compares values; numbers are equal when they are written alike or have
// the same value.
func Equal(a, b any) bool {
	switch x := a.(type) {
	case Object:
		y, ok := b.(Object)
		if !ok || len(x) != len(y) {
			return false
		}
		for name, v := range x {
			if w, ok := y[name]; !ok || !Equal(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, Equal)
	}
	if x, ok := Number(a); ok {
		y, ok := Number(b)
		return ok && x == y
	}
	return a == b
}

// Number is the value of a number in any of its forms.
func Number(v any) (float64, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
