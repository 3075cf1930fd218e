package kinds

import (
	"bufio"
	"bytes"
	"compress/flate"
	_ "embed" // for the table
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// compressed is the table, deflated. Its lines are
//
//	message NAME [union]
//	NUMBER JSON-NAME TYPE -FLAGS [patch=STRATEGY[:KEY]] [list=…] [map=…] [struct=…]
//	kind API-VERSION KIND MESSAGE
//
// where a field belongs to the message above it, TYPE is one of Type's or a
// message, JSON-NAME is - for what is inlined, and the flags are r (list), m (map
// from strings), w (list in a message of its own), p (pointer), o (omitempty),
// z (omitzero), i (inline) and n (a number of 32 bits). API-VERSION is * for a kind of every group.
//
//go:embed table.deflate
var compressed []byte

// Type is the type of a field's value, or of its elements.
type Type string

// The types of values. Those from Time on have a JSON of their own.
const (
	String   Type = "string"
	Bytes    Type = "bytes" // base64 in JSON
	Int      Type = "int"
	Uint     Type = "uint"
	Bool     Type = "bool"
	Double   Type = "double"
	Struct   Type = "message"
	Time     Type = "time"
	Micro    Type = "micro"
	Duration Type = "duration"
	Quantity Type = "quantity"
	IntStr   Type = "intstr"
	Raw      Type = "raw" // JSON of any form
)

// Field is one field of a message.
type Field struct {
	Number  int
	Name    string // in JSON; "-" if Inline
	Type    Type
	Message *Message // if Type is Struct

	List    bool // of Type
	Map     bool // from strings to Type, or to lists of it if Wrapped
	Wrapped bool // a list that is a message of its own: {1: items}
	Inline  bool // the message's fields stand in the parent's JSON object
	Pointer bool // absent and zero are different
	Narrow  bool // a number of 32 bits, not 64

	OmitEmpty, OmitZero bool // as encoding/json has it

	// PatchStrategy and MergeKey are of strategic merge patch: merge,
	// retainKeys, replace or several of them, separated by commas.
	PatchStrategy, MergeKey string
	// Merge says how server-side apply merges a list, map or struct: atomic,
	// granular, set, or map with MapKeys. Empty means granular for maps and
	// structs, atomic for lists.
	Merge   string
	MapKeys []string
}

// Message is the layout of a protobuf message, named as OpenAPI names it.
type Message struct {
	Name string
	// Union says that JSON has the member that is there, with no object around it.
	Union bool
	// Kind says that objects of it carry apiVersion and kind.
	Kind   bool
	Fields []Field // by ascending number
	number map[int]*Field
	name   map[string]*Field
}

// Field returns the field with a name in JSON, also of inlined messages; nil if
// there is none.
func (m *Message) Field(name string) *Field { return m.name[name] }

type table struct {
	source   string
	messages map[string]*Message
	kinds    map[string]*Message // by "API-VERSION KIND"
}

// loaded parses the table at its first use, which takes a few milliseconds. The
// table is part of the program: that it is sound is a test's business.
var loaded = sync.OnceValue(func() *table {
	t, err := parse(flate.NewReader(bytes.NewReader(compressed)))
	if err != nil {
		panic(fmt.Sprintf("kinds: embedded table: %v", err))
	}
	return t
})

// Lookup returns the layout of a kind, nil if it is not a built-in one. An
// apiVersion is a group and a version, such as apps/v1, or v1 for the core group.
func Lookup(apiVersion, kind string) *Message {
	t := loaded()
	if m := t.kinds[apiVersion+" "+kind]; m != nil {
		return m
	}
	return t.kinds["* "+kind]
}

// Source says which modules the table was generated from.
func Source() string { return loaded().source }

func parse(r io.Reader) (*table, error) {
	t := &table{messages: map[string]*Message{}, kinds: map[string]*Message{}}
	var m *Message
	s := bufio.NewScanner(r)
	for n := 1; s.Scan(); n++ {
		words := strings.Fields(s.Text())
		var err error
		switch {
		case len(words) < 2:
			err = fmt.Errorf("%d words", len(words))
		case words[0] == "#":
			t.source = strings.Join(words[1:], " ")
		case words[0] == "message":
			m = t.message(words[1])
			m.Union = len(words) > 2
		case words[0] == "kind" && len(words) == 4:
			k := t.message(words[3])
			k.Kind = true
			t.kinds[words[1]+" "+words[2]] = k
		case m != nil:
			var f Field
			if f, err = t.field(words); err == nil {
				m.Fields = append(m.Fields, f)
			}
		default:
			err = fmt.Errorf("unexpected %q", words[0])
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	for _, m := range t.messages {
		m.index()
	}
	return t, s.Err()
}

// message returns the message of a name, which may be described later.
func (t *table) message(name string) *Message {
	m := t.messages[name]
	if m == nil {
		m = &Message{Name: name, number: map[int]*Field{}}
		t.messages[name] = m
	}
	return m
}

func (t *table) field(words []string) (f Field, err error) {
	if len(words) < 4 || !strings.HasPrefix(words[3], "-") {
		return f, fmt.Errorf("no field: %q", words)
	}
	if f.Number, err = strconv.Atoi(words[0]); err != nil {
		return f, err
	}
	f.Name, f.Type = words[1], Type(words[2])
	if strings.Contains(words[2], ".") {
		f.Type, f.Message = Struct, t.message(words[2])
	}
	for _, flag := range words[3][1:] {
		switch flag {
		case 'r':
			f.List = true
		case 'm':
			f.Map = true
		case 'w':
			f.Wrapped = true
		case 'p':
			f.Pointer = true
		case 'o':
			f.OmitEmpty = true
		case 'z':
			f.OmitZero = true
		case 'i':
			f.Inline = true
		case 'n':
			f.Narrow = true
		default:
			return f, fmt.Errorf("flag %q", flag)
		}
	}
	for _, word := range words[4:] {
		mark, value, _ := strings.Cut(word, "=")
		if mark == "patch" {
			f.PatchStrategy, f.MergeKey, _ = strings.Cut(value, ":")
			continue
		}
		var keys string
		if f.Merge, keys, _ = strings.Cut(value, ":"); keys != "" {
			f.MapKeys = strings.Split(keys, ",")
		}
	}
	return f, nil
}

// index makes the fields findable.
func (m *Message) index() {
	if m.name != nil {
		return
	}
	m.name = map[string]*Field{}
	for i := range m.Fields {
		f := &m.Fields[i]
		m.number[f.Number] = f
		if !f.Inline {
			m.name[f.Name] = f
			continue
		}
		f.Message.index()
		for name, inner := range f.Message.name {
			m.name[name] = inner
		}
	}
}
