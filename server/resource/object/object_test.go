package object

import (
	"bytes"
	"encoding/json"
	"testing"
)

func decode(t testing.TB, s string) Object {
	t.Helper()
	o, _, err := Decode([]byte(s))
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return o
}

// containerRules are those of a list that is merged by name, and of a set.
type containerRules struct{}

func (containerRules) Field(name string) (Rule, bool) {
	switch name {
	case "list":
		return Rule{MergeList: true, Key: "name"}, true
	case "set":
		return Rule{MergeList: true}, true
	case "whole":
		return Rule{ReplaceMap: true}, true
	}
	return Rule{}, false
}

func TestMergeStrategic(t *testing.T) {
	for _, c := range []struct{ old, patch, want string }{
		{`{"a":1,"m":{"x":1,"y":2}}`, `{"a":null,"m":{"x":3}}`, `{"m":{"x":3,"y":2}}`},
		{`{"list":[{"name":"a","v":1},{"name":"b","v":1}]}`, `{"list":[{"name":"b","v":2},{"name":"c"}]}`, `{"list":[{"name":"a","v":1},{"name":"b","v":2},{"name":"c"}]}`},
		{`{"list":[{"name":"a","v":1}]}`, `{"list":[{"name":"c"}]}`, `{"list":[{"name":"c"},{"name":"a","v":1}]}`},
		{`{"list":[{"name":"a"},{"name":"b"}]}`, `{"list":[{"name":"a","$patch":"delete"}]}`, `{"list":[{"name":"b"}]}`},
		{`{"list":[{"name":"a"}]}`, `{"list":[{"name":"z"},{"$patch":"replace"}]}`, `{"list":[{"name":"z"}]}`},
		{`{"list":[{"name":"a"},{"name":"b"}]}`, `{"$setElementOrder/list":[{"name":"c"},{"name":"b"}],"list":[{"name":"c"}]}`, `{"list":[{"name":"c"},{"name":"a"},{"name":"b"}]}`},
		{`{"set":["a","b"]}`, `{"set":["b","c"]}`, `{"set":["a","b","c"]}`},
		{`{"set":["a","b"]}`, `{"$deleteFromPrimitiveList/set":["a"]}`, `{"set":["b"]}`},
		{`{"other":[1,2]}`, `{"other":[3]}`, `{"other":[3]}`},
		{`{"whole":{"a":1}}`, `{"whole":{"b":2}}`, `{"whole":{"b":2}}`},
		{`{"m":{"a":1,"b":2}}`, `{"m":{"$patch":"replace","c":3}}`, `{"m":{"c":3}}`},
		{`{"m":{"a":1,"b":2}}`, `{"m":{"$retainKeys":["b","c"],"c":3}}`, `{"m":{"b":2,"c":3}}`},
	} {
		old := decode(t, c.old)
		got, err := MergeStrategic(old, decode(t, c.patch), containerRules{})
		if err != nil || string(AppendValue(nil, got)) != c.want {
			t.Errorf("%s + %s = %s (%v), want %s", c.old, c.patch, AppendValue(nil, got), err, c.want)
		}
		if string(AppendValue(nil, old)) != c.old {
			t.Errorf("the old object changed: %s, was %s", AppendValue(nil, old), c.old)
		}
	}
	if _, err := MergeStrategic(Object{}, decode(t, `{"list":[{"v":1}]}`), containerRules{}); err == nil {
		t.Error("an element without its key was merged")
	}
}

func TestStamped(t *testing.T) {
	for _, in := range []string{
		`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"x":1}`,
		`{ "kind":"A", "metadata": {"name":"a","resourceVersion":"7"} }`,
		`{"kind":"A","spec":{"metadata":{"name":"inner"}},"metadata":{"labels":{},"name":"a"}}`,
		`{"metadata":{}}`,
	} {
		b := AppendStamped(nil, []byte(in), 42)
		if FindString(b, "metadata", "resourceVersion") != "42" || !json.Valid(b) {
			t.Errorf("%s stamped is %s", in, b)
		}
		if b = Restamped(b, 43); FindString(b, "metadata", "resourceVersion") != "43" || !json.Valid(b) {
			t.Errorf("%s stamped again is %s", in, b)
		}
	}
	if b := WithAPIVersion([]byte(`{"apiVersion":"a/v1","x":{"apiVersion":"b"}}`), "a/v2"); string(b) != `{"apiVersion":"a/v2","x":{"apiVersion":"b"}}` {
		t.Errorf("%s", b)
	}
}

// FuzzFind holds the scanner to encoding/json: whatever bytes it is given, it ends,
// and in a valid document it finds what the decoder finds.
func FuzzFind(f *testing.F) {
	for _, s := range []string{`{"a":{"b":"c\"d"},"e":[1,{"a":2}]}`, `{"a":`, `{"a" : true , "b":"\u0061"}`, `[1]`, `{"\u0061":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		found := Find(b, "a")
		AppendStamped(nil, b, 5)
		Restamped(b, 5)
		o, duplicates, err := Decode(b)
		if err != nil || len(duplicates) > 0 {
			return
		}
		want, ok := o["a"]
		if ok != (found != nil) {
			t.Fatalf("%s: found %s, decoded %v", b, found, want)
		}
		if ok && !json.Valid(found) {
			t.Fatalf("%s: found %s", b, found)
		}
		if again := decode(t, string(Encode(o))); !Equal(o, again) || !bytes.Equal(Encode(again), Encode(o)) {
			t.Fatalf("%s is %s when it is encoded", b, Encode(o))
		}
	})
}

func TestTypeEnd(t *testing.T) {
	for in, want := range map[string]string{
		`{"apiVersion":"v1","kind":"Pod","metadata":{}}`:  `"metadata":{}}`,
		`{"kind":"Pod","apiVersion":"v1","metadata":{}}`:  `"metadata":{}}`,
		`{"kind":"Pod","metadata":{},"apiVersion":"v1"}`:  "",
		`{"apiVersion":"v1","kind":"Pod", "metadata":{}}`: "",
		`{"apiVersion":"v1","kind":"Pod"}`:                "",
		`{"metadata":{"name":"a"}}`:                       "",
		`[]`:                                              "",
	} {
		end := TypeEnd([]byte(in))
		if got := in[end:]; end > 0 && got != want || end == 0 && want != "" {
			t.Errorf("%s goes on with %q, want %q", in, got, want)
		}
	}
}
