package object

import (
	"encoding/json"
	"errors"
	"strconv"
)

// maxDepth bounds nesting: deeper documents are refused before they cost stack.
const maxDepth = 200

// Decode reads one JSON document whose top is an object. Of a key that comes
// twice the last one counts; duplicates names such keys by path, for clients
// that want to be told.
//
// encoding/json says whether it is JSON. Then the bytes are known to be well formed,
// and reading them takes a third of what the tokens of its decoder take.
func Decode(b []byte) (o Object, duplicates []string, err error) {
	if !json.Valid(b) {
		return nil, nil, json.Unmarshal(b, new(json.RawMessage)) // which says why
	}
	d := decoder{b: b}
	v, err := d.value(0)
	if err != nil {
		return nil, nil, err
	}
	o, ok := v.(Object)
	if !ok {
		return nil, nil, errors.New("the document is not an object")
	}
	return o, d.duplicates, nil
}

// decoder reads valid JSON.
type decoder struct {
	b          []byte
	at         int
	path       []step // to what is read
	duplicates []string
}

// step is a name of an object, or a place in a list.
type step struct {
	name  string
	index int // of a list; -1: a name
}

func (d *decoder) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("the document is nested too deeply")
	}
	d.at = space(d.b, d.at)
	switch d.b[d.at] {
	case '{':
		return d.object(depth)
	case '[':
		return d.list(depth)
	case '"':
		return d.text()
	}
	from := d.at
	d.at = skipLiteral(d.b, from)
	switch raw := d.b[from:d.at]; raw[0] {
	case 'n':
		return nil, nil
	case 't', 'f':
		return raw[0] == 't', nil
	default:
		return json.Number(raw), nil
	}
}

func (d *decoder) text() (string, error) {
	from := d.at
	d.at = skipString(d.b, from)
	return text(d.b[from:d.at])
}

// begin passes the byte that begins an object or a list, and reports whether an
// element follows; if none does, it passes the end, too.
func (d *decoder) begin(end byte) bool {
	d.at = space(d.b, d.at+1)
	if d.b[d.at] == end {
		d.at++
		return false
	}
	return true
}

// another passes what follows an element: a comma, or the end.
func (d *decoder) another() bool {
	d.at = space(d.b, d.at) + 1
	return d.b[d.at-1] == ','
}

func (d *decoder) list(depth int) (any, error) {
	list := []any{}
	d.path = append(d.path, step{})
	defer func() { d.path = d.path[:len(d.path)-1] }()
	for more := d.begin(']'); more; more = d.another() {
		d.path[len(d.path)-1].index = len(list)
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func (d *decoder) object(depth int) (any, error) {
	o := Object{}
	d.path = append(d.path, step{index: -1})
	defer func() { d.path = d.path[:len(d.path)-1] }()
	for more := d.begin('}'); more; more = d.another() {
		d.at = space(d.b, d.at)
		name, err := d.text()
		if err != nil {
			return nil, err
		}
		d.path[len(d.path)-1].name = name
		if _, again := o[name]; again {
			d.duplicates = append(d.duplicates, d.place())
		}
		d.at = space(d.b, d.at) + 1 // the colon
		if o[name], err = d.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// place writes the path, as in spec.containers[0].name.
func (d *decoder) place() string {
	var b []byte
	for _, s := range d.path {
		switch {
		case s.index >= 0:
			b = append(strconv.AppendInt(append(b, '['), int64(s.index), 10), ']')
		case len(b) > 0:
			b = append(append(b, '.'), s.name...)
		default:
			b = append(b, s.name...)
		}
	}
	return string(b)
}
