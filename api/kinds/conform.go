package kinds

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Conform changes an object of JSON to what Kubernetes' own type of it makes of
// it: fields that the type does not have are gone, as are those that are empty
// and need not be there; those that must be there are; times and quantities have
// their one form. Its error is the first value that is not of its field's type,
// in the words of Kubernetes' decoder; the object is half changed then.
func Conform(m *Message, object map[string]any) error {
	c := &conformer{}
	c.message(m, object)
	return c.first
}

// conformer is the state of making one object conform.
type conformer struct {
	path  []string
	first error
}

func (c *conformer) wrong(err error) {
	if c.first == nil {
		c.first = err
	}
}

// message changes an object to what is a message's; zero says that nothing is set.
func (c *conformer) message(m *Message, o map[string]any) (zero bool) {
	for name := range o {
		if m.Field(name) == nil && !(m.Kind && (name == "apiVersion" || name == "kind")) {
			delete(o, name)
		}
	}
	return c.fields(m, m, o)
}

// fields are those of a message that stands in an object of type in: the same, or
// one that is inlined there.
func (c *conformer) fields(in, m *Message, o map[string]any) (zero bool) {
	zero = true
	for i := range m.Fields {
		f := &m.Fields[i]
		if f.Inline {
			if !f.Pointer || f.Message.in(o) {
				zero = c.fields(in, f.Message, o) && zero && !f.Pointer
			}
			continue
		}
		c.path = append(c.path, f.Name)
		v, empty, unset := c.field(in, f, o[f.Name])
		c.path = c.path[:len(c.path)-1]
		zero = zero && unset
		if f.OmitZero && unset || f.OmitEmpty && empty {
			delete(o, f.Name)
		} else {
			o[f.Name] = v
		}
	}
	return zero
}

// in reports whether an object has a field of a message.
func (m *Message) in(o map[string]any) bool {
	for name := range o {
		if m.Field(name) != nil {
			return true
		}
	}
	return false
}

// field makes a field's value conform. empty is what omitempty leaves out, unset
// what omitzero does.
func (c *conformer) field(in *Message, f *Field, v any) (_ any, empty, unset bool) {
	many := f.List || f.Map || f.Wrapped
	if v == nil && (many || f.Pointer || f.Type == Bytes || f.Type == Raw) {
		return nil, many || f.Pointer || f.Type == Bytes, true
	}
	if many {
		v, empty = c.elements(in, f, v)
		return v, empty, false
	}
	v, zero := c.value(in, f, v, f.goType())
	return v, zero && !f.Pointer && f.emptiable(), zero && !f.Pointer
}

// elements makes the elements of a list, a map or a map of lists conform.
func (c *conformer) elements(in *Message, f *Field, v any) (_ any, empty bool) {
	one := *f
	switch all := v.(type) {
	case map[string]any:
		if !f.Map {
			break
		}
		one.Map, one.Wrapped = false, false
		one.List = f.List || f.Wrapped
		for name, e := range all {
			all[name], _, _ = c.field(in, &one, e)
		}
		return all, len(all) == 0
	case []any:
		if f.Map {
			break
		}
		one.List, one.Wrapped, one.Pointer = false, false, false
		for i, e := range all {
			all[i], _, _ = c.field(in, &one, e)
		}
		return all, len(all) == 0
	}
	c.mismatch(in, v, f.goType())
	return nil, true
}

// value makes one value conform; nil is the type's zero.
func (c *conformer) value(in *Message, f *Field, v any, typ string) (_ any, zero bool) {
	if v == nil && f.Type != Struct {
		v, zero, err := scalar(f.Type, element{})
		if err != nil {
			c.wrong(err)
		}
		return v, zero
	}
	switch f.Type {
	case Struct:
		return c.structure(in, f, v, typ)
	case String:
		s, ok := v.(string)
		if !ok {
			c.mismatch(in, v, typ)
		}
		return v, s == ""
	case Bool:
		b, ok := v.(bool)
		if !ok {
			c.mismatch(in, v, typ)
		}
		return v, !b
	case Int, Uint, Double:
		return c.number(in, f, v, typ)
	case Raw:
		return v, false
	case Bytes:
		switch list, isList := v.([]any); {
		case isList:
			v = c.bytes(in, list)
		case jsonKind(v) != "string":
			c.mismatch(in, v, "[]uint8")
		}
	}
	return c.text(f.Type, v)
}

// bytes is the text of bytes that came as a list of numbers, as Go reads them, too.
func (c *conformer) bytes(in *Message, list []any) string {
	out := make([]byte, len(list))
	for i, e := range list {
		switch n, err := strconv.ParseUint(fmt.Sprint(e), 10, 8); {
		case e == nil:
		case jsonKind(e) != "number":
			c.mismatch(in, e, "uint8")
		case err != nil:
			c.misfit("number "+fmt.Sprint(e), in, "uint8")
		default:
			out[i] = byte(n)
		}
	}
	return base64.StdEncoding.EncodeToString(out)
}

func (c *conformer) structure(in *Message, f *Field, v any, typ string) (_ any, zero bool) {
	if f.Message.Union {
		v = c.union(in, f.Message, v)
		return v, v == nil
	}
	if v == nil {
		v = map[string]any{}
	}
	o, ok := v.(map[string]any)
	if !ok {
		c.mismatch(in, v, typ)
		return v, false
	}
	return o, c.message(f.Message, o)
}

// union makes a value conform that is one of a union's members. The types of
// Kubernetes take a value that is none of them for nothing, unless they stand for
// true and false, too.
func (c *conformer) union(in, m *Message, v any) any {
	orBool := false
	for i := range m.Fields {
		f := &m.Fields[i]
		orBool = orBool || f.Type == Bool
		is := false
		switch e := v.(type) {
		case []any:
			is = f.List && len(e) > 0
		case map[string]any:
			is = f.Type == Struct && !f.List
		case bool:
			is = f.Type == Bool
		}
		if is {
			v, _, _ = c.field(in, f, v)
			return v
		}
	}
	if orBool {
		c.wrong(errors.New("boolean or JSON schema expected"))
	}
	return nil
}

func (c *conformer) number(in *Message, f *Field, v any, typ string) (_ any, zero bool) {
	var text string
	switch n := v.(type) {
	case json.Number:
		text = n.String()
	case int64, float64:
		text = fmt.Sprint(n)
	default:
		c.mismatch(in, v, typ)
		return v, false
	}
	var err error
	bits := 64
	if f.Narrow {
		bits = 32
	}
	switch f.Type {
	case Int:
		_, err = strconv.ParseInt(text, 10, bits)
	case Uint:
		_, err = strconv.ParseUint(text, 10, bits)
	default:
		_, err = strconv.ParseFloat(text, bits)
	}
	if err != nil {
		c.misfit("number "+text, in, typ)
	}
	n, _ := strconv.ParseFloat(text, 64)
	return v, n == 0
}

// text makes a value conform whose JSON is a text of some form.
func (c *conformer) text(t Type, v any) (_ any, zero bool) {
	s, isText := v.(string)
	n, isNumber := v.(json.Number)
	if i, ok := v.(int64); ok {
		n, isNumber = json.Number(strconv.FormatInt(i, 10)), true
	}
	switch {
	case t == IntStr && isNumber:
		if _, err := strconv.ParseInt(n.String(), 10, 32); err != nil {
			c.wrong(fmt.Errorf("json: cannot unmarshal number %s into Go value of type int32", n))
		}
		return v, n == "0"
	case t == IntStr && isText:
		return s, false
	case t == Quantity && isNumber:
		s, isText = n.String(), true
	}
	if !isText {
		c.wrong(fmt.Errorf("json: cannot unmarshal %s into Go value of type string", jsonKind(v)))
		return v, false
	}
	out, err := canonical(t, s)
	if err != nil {
		c.wrong(err)
	}
	return out, t == Bytes && out == "" || t == Quantity && out == "0"
}

// canonical is the one form in which a text of a type is written.
func canonical(t Type, s string) (string, error) {
	switch t {
	case Bytes:
		_, err := base64.StdEncoding.DecodeString(s)
		return s, err
	case Time:
		at, err := time.Parse(time.RFC3339, s)
		return at.UTC().Format(time.RFC3339), err
	case Micro:
		at, err := time.Parse(microLayout, s)
		return at.UTC().Format(microLayout), err
	case Duration:
		d, err := time.ParseDuration(s)
		return d.String(), err
	case Quantity:
		v, form, err := ParseQuantity(strings.TrimSpace(s))
		if err != nil {
			return s, err
		}
		return FormatQuantity(v, form), nil
	}
	return s, nil
}

// mismatch reports a value that is of another type than its field.
func (c *conformer) mismatch(in *Message, v any, typ string) { c.misfit(jsonKind(v), in, typ) }

func (c *conformer) misfit(what string, in *Message, typ string) {
	c.wrong(fmt.Errorf("json: cannot unmarshal %s into Go struct field %s.%s of type %s", what, in.Name[strings.LastIndexByte(in.Name, '.')+1:], strings.Join(c.path, "."), typ))
}

// jsonKind is what Go's decoder calls a value's kind.
func jsonKind(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case bool:
		return "bool"
	case map[string]any:
		return "object"
	case []any:
		return "array"
	}
	return "number"
}

// goType is the type of a field in Kubernetes' source, as far as the table knows it.
func (f *Field) goType() string {
	typ := string(f.Type)
	switch f.Type {
	case Struct:
		parts := strings.Split(f.Message.Name, ".")
		typ = strings.Join(parts[max(len(parts)-2, 0):], ".")
	case Int, Uint:
		typ += map[bool]string{true: "32", false: "64"}[f.Narrow]
	case Double:
		typ = "float64"
	}
	if f.List || f.Wrapped {
		typ = "[]" + typ
	}
	if f.Map {
		typ = "map[string]" + typ
	}
	return typ
}

// Unknown names the fields of an object that its message does not have, by path.
func (m *Message) Unknown(object map[string]any) []string {
	out := m.unknown(object, "", nil)
	slices.Sort(out)
	return out
}

func (m *Message) unknown(o map[string]any, path string, out []string) []string {
	for name, v := range o {
		f := m.Field(name)
		at := strings.TrimPrefix(path+"."+name, ".")
		switch {
		case f == nil:
			if !m.Kind || name != "apiVersion" && name != "kind" {
				out = append(out, at)
			}
		case f.Message != nil && !f.Message.Union:
			out = f.unknownIn(v, at, out)
		}
	}
	return out
}

func (f *Field) unknownIn(v any, at string, out []string) []string {
	switch v := v.(type) {
	case map[string]any:
		if !f.Map {
			return f.Message.unknown(v, at, out)
		}
		for name, e := range v {
			if o, ok := e.(map[string]any); ok {
				out = f.Message.unknown(o, at+"["+name+"]", out)
			}
		}
	case []any:
		for i, e := range v {
			if o, ok := e.(map[string]any); ok {
				out = f.Message.unknown(o, at+"["+strconv.Itoa(i)+"]", out)
			}
		}
	}
	return out
}
