package kinds

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strconv"
)

// Object is a decoded object.
type Object struct {
	APIVersion, Kind string
	// Fields is the object as JSON has it, apiVersion and kind included. Its
	// values are map[string]any, []any, string, bool, int64, float64 and nil;
	// a number of 2^63 or more is a uint64 or float64. The caller owns it.
	Fields map[string]any
	// Unknown are the fields that the table does not have.
	Unknown []Unknown
	// Protobuf says that the value was protobuf, not JSON.
	Protobuf bool
}

// Unknown is a field of a protobuf message that Kubernetes had not defined when
// the table was generated, or that somebody wrote by mistake.
type Unknown struct {
	Path   string // of the message, such as spec.containers[2]
	Number int
	Bytes  []byte // what the field has, without its tag; nil beyond the first 64
}

func (u Unknown) String() string {
	return fmt.Sprintf("%s#%d (%d bytes)", u.Path, u.Number, len(u.Bytes))
}

// EncryptedError says that a value is encrypted, and by what.
type EncryptedError struct {
	Provider string // such as aescbc:v1:key1 or kms:v2:name
}

func (e *EncryptedError) Error() string { return "encrypted by " + e.Provider }

// UnknownKindError says that protobuf cannot be read because the table has no
// such kind.
type UnknownKindError struct{ APIVersion, Kind string }

func (e *UnknownKindError) Error() string {
	return fmt.Sprintf("kind %s of %s is not known", e.Kind, e.APIVersion)
}

// ErrNotObject says that a value is in no form that Kubernetes stores objects in.
var ErrNotObject = errors.New("not a Kubernetes object")

var (
	envelopePrefix  = []byte("k8s\x00")
	encryptedPrefix = []byte("k8s:enc:")
)

// IsProtobuf reports whether a value has the prefix of a protobuf envelope.
func IsProtobuf(value []byte) bool { return bytes.HasPrefix(value, envelopePrefix) }

// Decode reads an object from what is stored, or from the body of a request. Its
// errors are ErrNotObject, ErrMalformed, *EncryptedError and *UnknownKindError;
// with the last comes an Object without fields.
func Decode(value []byte) (*Object, error) {
	switch {
	case IsProtobuf(value):
		return decodeEnvelope(value[len(envelopePrefix):])
	case bytes.HasPrefix(value, encryptedPrefix):
		return nil, &EncryptedError{Provider: provider(value[len(encryptedPrefix):])}
	case bytes.HasPrefix(bytes.TrimLeft(value, " \t\r\n"), []byte("{")):
		return decodeJSON(value)
	}
	return nil, ErrNotObject
}

// provider is the readable beginning of an encrypted value: the provider, its
// version and the name of its key or plugin, such as aescbc:v1:key1.
func provider(b []byte) string {
	parts := bytes.SplitN(b, []byte(":"), 4)
	if len(parts) == 4 {
		parts = parts[:3]
	}
	out := bytes.Join(parts, []byte(":"))
	for i, c := range out {
		if c <= ' ' || c > '~' || i == 80 {
			out = out[:i]
			break
		}
	}
	return string(bytes.TrimSuffix(out, []byte(":")))
}

func decodeJSON(value []byte) (*Object, error) {
	v, err := parseJSON(value)
	if err != nil {
		return nil, err
	}
	o := &Object{}
	o.Fields, _ = v.(map[string]any)
	o.APIVersion, _ = o.Fields["apiVersion"].(string)
	o.Kind, _ = o.Fields["kind"].(string)
	if o.APIVersion == "" || o.Kind == "" {
		return nil, fmt.Errorf("%w: JSON without apiVersion and kind", ErrNotObject)
	}
	return o, nil
}

func decodeEnvelope(b []byte) (*Object, error) {
	o := &Object{Protobuf: true}
	var body []byte
	err := each(b, func(e element) error {
		switch {
		case e.number == 1 && e.wire == wireBytes:
			return each(e.bytes, func(e element) error {
				switch e.number {
				case 1:
					o.APIVersion = string(e.bytes)
				case 2:
					o.Kind = string(e.bytes)
				}
				return nil
			})
		case e.number == 2 && e.wire == wireBytes:
			body = e.bytes
		case e.number == 3 && len(e.bytes) > 0:
			return fmt.Errorf("%w: content encoding %q", ErrMalformed, e.bytes)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	m := Lookup(o.APIVersion, o.Kind)
	if m == nil {
		return o, &UnknownKindError{o.APIVersion, o.Kind}
	}
	d := &decoder{}
	o.Fields, _, err = d.message(m, body, 0)
	if err != nil {
		return nil, err
	}
	o.Fields["apiVersion"], o.Fields["kind"] = o.APIVersion, o.Kind
	o.Unknown = d.unknown
	return o, nil
}

// decoder is the state of reading one object.
type decoder struct {
	path    []step
	values  int
	unknown []Unknown
}

// step is a part of the path to the message that is being read.
type step struct {
	name  string
	index int // in a list, else -1
}

func (d *decoder) where() string {
	var s []byte
	for _, p := range d.path {
		if len(s) > 0 {
			s = append(s, '.')
		}
		s = append(s, p.name...)
		if p.index >= 0 {
			s = append(strconv.AppendInt(append(s, '['), int64(p.index), 10), ']')
		}
	}
	return string(s)
}

// message reads a message into a JSON object. zero says that all of it is the
// zero value of its Go type.
func (d *decoder) message(m *Message, b []byte, depth int) (out map[string]any, zero bool, err error) {
	out = map[string]any{}
	zero, err = d.into(out, m, b, depth)
	return out, zero, err
}

// into reads a message into an object that may have other fields already: those
// of the message around it if this one is inlined, or those of an earlier part
// of the same message.
func (d *decoder) into(out map[string]any, m *Message, b []byte, depth int) (zero bool, err error) {
	if depth > maxDepth {
		return false, fmt.Errorf("%w: deeper than %d", ErrMalformed, maxDepth)
	}
	seen := map[int]bool{}
	zero = true
	err = each(b, func(e element) error {
		f := m.number[e.number]
		if f == nil {
			d.report(e)
			return nil
		}
		seen[f.Number] = true
		fieldZero, err := d.field(out, f, e, depth)
		zero = zero && fieldZero
		return err
	})
	if err != nil {
		return false, err
	}
	for i := range m.Fields {
		if f := &m.Fields[i]; !seen[f.Number] {
			if err := d.absent(out, f, depth); err != nil {
				return false, err
			}
		}
	}
	return zero, nil
}

func (d *decoder) report(e element) {
	u := Unknown{Path: d.where(), Number: e.number}
	if len(d.unknown) < maxUnknown {
		u.Bytes = bytes.Clone(e.bytes)
	}
	if len(d.unknown) < 16*maxUnknown {
		d.unknown = append(d.unknown, u)
	}
}

// count refuses objects with too many values.
func (d *decoder) count() error {
	if d.values++; d.values > maxValues {
		return fmt.Errorf("%w: more than %d values", ErrMalformed, maxValues)
	}
	return nil
}

// field reads one element of a field into the object.
func (d *decoder) field(out map[string]any, f *Field, e element, depth int) (zero bool, err error) {
	if err := d.count(); err != nil {
		return false, err
	}
	if want := f.wire(); e.wire != want && !(f.List && want == wireVarint && e.wire == wireBytes) {
		return false, fmt.Errorf("%w: %s.%s has wire type %d", ErrMalformed, d.where(), f.Name, e.wire)
	}
	list, _ := out[f.Name].([]any)
	index := -1
	if f.List {
		index = len(list)
	}
	if !f.Inline {
		d.path = append(d.path, step{f.Name, index})
		defer func() { d.path = d.path[:len(d.path)-1] }()
	}
	switch {
	case f.Map:
		return false, d.entry(out, f, e.bytes, depth)
	case f.Wrapped:
		list, err := d.items(f, e.bytes, depth)
		if out[f.Name] = list; list == nil {
			out[f.Name] = nil // Go has a nil slice then
		}
		return false, err
	case f.List && e.wire == wireBytes && f.wire() == wireVarint:
		out[f.Name], err = d.packed(list, f, e.bytes)
		return false, err
	case f.List:
		v, _, err := d.value(f, e, nil, depth)
		out[f.Name] = append(list, v)
		return false, err
	case f.Inline:
		zero, err = d.into(out, f.Message, e.bytes, depth+1)
		return zero && !f.Pointer, err
	}
	v, zero, err := d.value(f, e, out[f.Name], depth)
	if err != nil {
		return false, err
	}
	if !f.Pointer && zero && (f.OmitZero || f.OmitEmpty && f.emptiable()) {
		delete(out, f.Name)
		return true, nil
	}
	out[f.Name] = v
	return zero && !f.Pointer, nil
}

// wire is the wire type that a field's elements have.
func (f *Field) wire() int {
	switch {
	case f.Map || f.Wrapped:
		return wireBytes
	case f.Type == Int || f.Type == Uint || f.Type == Bool:
		return wireVarint
	case f.Type == Double:
		return wireFixed8
	}
	return wireBytes
}

// emptiable reports whether omitempty has an effect on the zero value of a
// field that is neither list, map nor pointer: on structs it has none.
func (f *Field) emptiable() bool {
	switch f.Type {
	case String, Bytes, Int, Uint, Bool, Double:
		return true
	}
	return false
}

// absent writes what JSON has for a field that is not in the message.
func (d *decoder) absent(out map[string]any, f *Field, depth int) error {
	if f.Inline {
		if f.Pointer {
			return nil
		}
		_, err := d.into(out, f.Message, nil, depth+1)
		return err
	}
	nothing := f.Pointer || f.List || f.Map || f.Wrapped || f.Type == Bytes // nil in Go
	if f.OmitZero || f.OmitEmpty && (nothing || f.emptiable()) {
		return nil
	}
	if err := d.count(); err != nil || nothing {
		out[f.Name] = nil
		return err
	}
	v, _, err := d.value(f, element{}, nil, depth)
	out[f.Name] = v
	return err
}

// entry reads one entry of a map: a message of key and value.
func (d *decoder) entry(out map[string]any, f *Field, b []byte, depth int) error {
	m, _ := out[f.Name].(map[string]any)
	if m == nil {
		m = map[string]any{}
		out[f.Name] = m
	}
	var key string
	var val element
	err := each(b, func(e element) error {
		switch {
		case e.number == 1 && e.wire == wireBytes:
			key = string(e.bytes)
		case e.number == 2 && (e.wire == wireBytes || e.wire == wireVarint && f.elementWire() == wireVarint):
			val = e
		default:
			return fmt.Errorf("%w: entry of %s", ErrMalformed, d.where())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if f.Wrapped || f.List {
		list, err := d.items(f, val.bytes, depth)
		if m[key] = list; list == nil {
			m[key] = []any{}
		}
		return err
	}
	m[key], _, err = d.value(f, val, nil, depth)
	return err
}

func (f *Field) elementWire() int {
	e := *f
	e.Map = false
	return e.wire()
}

// items reads a list that is a message of its own.
func (d *decoder) items(f *Field, b []byte, depth int) (list []any, err error) {
	err = each(b, func(e element) error {
		if e.number != 1 || e.wire != wireBytes {
			return fmt.Errorf("%w: items of %s", ErrMalformed, d.where())
		}
		if err := d.count(); err != nil {
			return err
		}
		v, _, err := d.value(f, e, nil, depth)
		list = append(list, v)
		return err
	})
	return list, err
}

// packed reads numbers that share one element.
func (d *decoder) packed(list []any, f *Field, b []byte) ([]any, error) {
	for len(b) > 0 {
		if err := d.count(); err != nil {
			return nil, err
		}
		v, rest, err := uvarint(b)
		if err != nil {
			return nil, err
		}
		n, _, err := scalar(f.Type, element{wire: wireVarint, value: v})
		if err != nil {
			return nil, err
		}
		list, b = append(list, n), rest
	}
	return list, nil
}

// value reads one value; an element without bytes stands for the zero value.
// before is what an earlier element of the same field gave.
func (d *decoder) value(f *Field, e element, before any, depth int) (v any, zero bool, err error) {
	if f.Type != Struct {
		v, zero, err = scalar(f.Type, e)
		if err != nil {
			err = fmt.Errorf("%s: %w", d.where(), err)
		}
		return v, zero, err
	}
	out, _ := before.(map[string]any)
	if out == nil {
		out = map[string]any{}
	}
	zero, err = d.into(out, f.Message, e.bytes, depth+1)
	if f.Message.Union {
		return union(f.Message, out), zero, err
	}
	return out, zero, err
}

// union is the member that stands for the whole: a list before an object before
// a plain value, as the types of Kubernetes write it.
func union(m *Message, out map[string]any) any {
	rank := func(v any) int {
		switch v.(type) {
		case []any:
			return 3
		case map[string]any:
			return 2
		case nil:
			return 0
		}
		return 1
	}
	var best any
	for v := range maps.Values(out) {
		if rank(v) > rank(best) {
			best = v
		}
	}
	return best
}
