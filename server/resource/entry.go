package resource

import (
	"bytes"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/keelson-io/keelson/server/resource/object"
)

// entry is one object at one revision, as lists and watches send it. It never
// changes.
type entry struct {
	key  string // below the collection's prefix: namespace/name, or name
	rev  int64
	json []byte // with its resource version
	// typeEnd is where the object goes on after its type, if that is the kind's that
	// its collection stores; else 0.
	typeEnd int32
	meta    object.Meta
	fields  []string // values of the kind's selectable fields
}

// newEntry makes an entry of a stored value. k is the kind that the collection
// stores.
func newEntry(k *Kind, key string, value []byte, rev int64) (*entry, error) {
	stored, err := storedJSON(value)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", k.Prefix, key, err)
	}
	e := &entry{key: key, rev: rev, json: object.AppendStamped(make([]byte, 0, len(stored)+object.StampBytes(rev)), stored, rev)}
	if e.meta, err = object.ParseMeta(e.json); err != nil {
		return nil, fmt.Errorf("%s%s: %w", k.Prefix, key, err)
	}
	if k.names(e.json) {
		e.typeEnd = int32(object.TypeEnd(e.json))
	}
	if len(k.Fields) > 0 {
		e.fields = make([]string, len(k.Fields))
		for i := range k.Fields {
			e.fields[i] = k.Fields[i].of(e.json)
		}
	}
	return e, nil
}

// size is what the object's bytes take; nothing, without an object.
func (e *entry) size() int {
	if e == nil {
		return 0
	}
	return cap(e.json)
}

// protobufPrefix begins values and bodies in Kubernetes' protobuf envelope.
var protobufPrefix = []byte("k8s\x00")

// storedJSON is a stored value as JSON: as it is, or from a kube-apiserver's
// protobuf.
func storedJSON(value []byte) ([]byte, error) {
	if bytes.HasPrefix(value, protobufPrefix) {
		var err error
		if value, err = decodeProtobuf(value); err != nil {
			return nil, err
		}
	}
	if len(value) == 0 || value[0] != '{' {
		return nil, fmt.Errorf("the value is neither JSON nor protobuf; encrypted values cannot be read")
	}
	switch {
	case isBetaDefinition(value):
		return modernDefinition(value)
	case isOlderAutoscaler(value):
		return modernAutoscaler(value)
	}
	return value, nil
}

// of is the field's value in an encoded object, as selectors compare it.
func (f *SelectableField) of(b []byte) string {
	raw := object.Find(b, f.Path...)
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return f.Default
	case raw[0] == '"':
		if s := object.FindString(b, f.Path...); s != "" {
			return s
		}
		return f.Default
	}
	return string(raw)
}

// Selection restricts a list or a watch.
type Selection struct {
	labels    labels.Selector // nil: all
	fields    fields.Selector // nil: all
	kind      *Kind           // whose fields they are
	namespace string          // empty: all
	name      string          // empty: all; else the object of that name only
}

// matches reports whether an entry is selected; nil is not.
func (s *Selection) matches(e *entry) bool {
	if e == nil {
		return false
	}
	if s.namespace != "" && e.meta.Namespace != s.namespace {
		return false
	}
	if s.labels != nil && !s.labels.Matches(e.meta.Labels) {
		return false
	}
	return s.fields == nil || s.fields.Matches(entryFields{e, s.kind})
}

// selective reports whether some objects of the range may be left out.
func (s *Selection) selective() bool { return s.labels != nil || s.fields != nil }

// entryFields are an entry's fields as package fields asks for them.
type entryFields struct {
	e *entry
	k *Kind
}

func (f entryFields) Has(field string) bool { return f.k.selectable(field) }

func (f entryFields) Get(field string) string {
	switch field {
	case "metadata.name":
		return f.e.meta.Name
	case "metadata.namespace":
		return f.e.meta.Namespace
	}
	for i := range f.k.Fields {
		if f.k.Fields[i].Name == field && i < len(f.e.fields) {
			return f.e.fields[i]
		}
	}
	return ""
}

func (k *Kind) selectable(field string) bool {
	if field == "metadata.name" || field == "metadata.namespace" && k.Namespaced {
		return true
	}
	for i := range k.Fields {
		if k.Fields[i].Name == field {
			return true
		}
	}
	return false
}

// selectionOf reads the selectors of a request.
func selectionOf(k *Kind, namespace, labelSelector, fieldSelector string) (*Selection, error) {
	s := &Selection{kind: k, namespace: namespace}
	if labelSelector != "" {
		sel, err := labels.Parse(labelSelector)
		if err != nil {
			return nil, badRequest("%v", err)
		}
		if !sel.Empty() {
			s.labels = sel
		}
	}
	if fieldSelector == "" {
		return s, nil
	}
	sel, err := fields.ParseSelector(fieldSelector)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	for _, r := range sel.Requirements() {
		if !k.selectable(r.Field) {
			if len(k.Fields) == 0 && !k.Custom {
				return nil, badRequest("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", r.Field)
			}
			return nil, badRequest("field label not supported: %s", r.Field)
		}
	}
	if name, ok := sel.RequiresExactMatch("metadata.name"); ok {
		s.name = name
	}
	if ns, ok := sel.RequiresExactMatch("metadata.namespace"); ok && s.namespace == "" {
		s.namespace = ns
	}
	if !sel.Empty() {
		s.fields = sel
	}
	return s, nil
}

// within is the range of keys, below the collection's prefix, that the selection
// can meet: all keys that begin with it, or the one key if exact.
func (s *Selection) within() (prefix string, exact bool) {
	switch {
	case !s.kind.Namespaced:
		return s.name, s.name != ""
	case s.namespace == "":
		return "", false
	}
	return s.namespace + "/" + s.name, s.name != ""
}

// covers reports whether a key is in the range of within.
func (s *Selection) covers(key string) bool {
	prefix, exact := s.within()
	if exact {
		return key == prefix
	}
	return strings.HasPrefix(key, prefix)
}
