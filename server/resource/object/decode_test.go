package object

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// FuzzDecode holds Decode to encoding/json: what that takes, and it alone, is decoded, to
// the same values.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"a":{"b":"c\"d\u00e9"},"e":[1,-2.5e3,{"a":null}],"f":true,"g":false,"h":[],"i":{}}`, " {\t\"a\" : [ 1 , { \"b\" : [ ] } ]\r\n} ",
		`{"a":1,"a":{"b":1,"b":2}}`, `{"a":"` + "\xff" + `"}`, `{"a":1}{"b":2}`, `[1]`, `7`, `{"a" 1}`, ``, `{"":0}`, `{"\ud800":"\ud83d\ude00"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _, err := Decode(b)
		var want any
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		failed := d.Decode(&want)
		object, ok := want.(map[string]any)
		if takes := failed == nil && ok && json.Valid(b); !takes {
			if err == nil {
				t.Fatalf("%q is decoded to %v", b, got)
			}
			return
		}
		if deep := err != nil && strings.Count(string(b), "{")+strings.Count(string(b), "[") > maxDepth; deep {
			return
		}
		if err != nil || !reflect.DeepEqual(got, object) {
			t.Fatalf("%q is decoded to %v, %v; encoding/json says %v", b, got, err, object)
		}
	})
}

// TestDuplicates: names that come twice are told by their paths.
func TestDuplicates(t *testing.T) {
	o, duplicates, err := Decode([]byte(`{"a":1, "s":{"c":[{"n":1},{"n":1,"n":{"x":1,"x":2}}]}, "a":2, "l":[[0,{"y":1,"y":1}]]}`))
	if err != nil || o["a"] != json.Number("2") {
		t.Errorf("%v, %v", o, err)
	}
	if want := []string{"s.c[1].n", "s.c[1].n.x", "a", "l[0][1].y"}; !slices.Equal(duplicates, want) {
		t.Errorf("duplicates %v, want %v", duplicates, want)
	}
	for _, deep := range []string{strings.Repeat(`{"a":`, 300) + "1" + strings.Repeat("}", 300), `{"a":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "}"} {
		if _, _, err := Decode([]byte(deep)); err == nil || !strings.Contains(err.Error(), "nested too deeply") {
			t.Errorf("300 levels: %v", err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	pod := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"app":"web","tier":"front"}},"spec":{"containers":[` +
		strings.Repeat(`{"name":"c","image":"i:1","env":[{"name":"A","value":"b"},{"name":"C","value":"d"}],"ports":[{"containerPort":80}]},`, 20) + `{}]}}`)
	b.SetBytes(int64(len(pod)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Decode(pod); err != nil {
			b.Fatal(err)
		}
	}
}
