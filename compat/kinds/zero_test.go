package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// TestFilled compares the decoder with the types themselves on objects in which
// ever more fields are set: what an absent field, a zero, an empty list and a
// pointer to zero become is what differs between them.
func TestFilled(t *testing.T) {
	s, err := scheme()
	if err != nil {
		t.Fatal(err)
	}
	codec := protobuf.NewSerializer(s, s)
	for gvk, typ := range s.AllKnownTypes() {
		if gvk.Version == "__internal" || !isKind(typ) || strings.HasPrefix(gvk.Group, "meta") {
			continue
		}
		for depth := range 9 {
			for _, nonzero := range []bool{false, true} {
				v := reflect.New(typ)
				fill(v.Elem(), depth, nonzero)
				check(t, codec, gvk, v.Interface().(runtime.Object))
			}
		}
	}
}

func check(t *testing.T, codec *protobuf.Serializer, gvk schema.GroupVersionKind, o runtime.Object) {
	t.Helper()
	o.GetObjectKind().SetGroupVersionKind(gvk)
	var stored strings.Builder
	if err := codec.Encode(o, &stored); err != nil {
		t.Fatal(gvk, err)
	}
	// What came back from protobuf counts: it has no empty lists.
	back, _, err := codec.Decode([]byte(stored.String()), nil, nil)
	if err != nil {
		t.Fatal(gvk, err)
	}
	back.GetObjectKind().SetGroupVersionKind(gvk)
	text, err := json.Marshal(back)
	if err != nil {
		t.Fatal(gvk, err)
	}
	t.Run(gvk.GroupVersion().String()+"."+gvk.Kind, func(t *testing.T) { same(t, []byte(stored.String()), text) })
}

// fill sets the fields of a value down to a depth: pointers to values, lists and
// maps of one element.
func fill(v reflect.Value, depth int, nonzero bool) {
	if special[v.Type().PkgPath()+"."+v.Type().Name()] != "" {
		fillSpecial(v, nonzero)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth-1, nonzero)
		}
	case reflect.Slice:
		if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0), depth-1, nonzero)
		}
	case reflect.Map:
		if depth > 0 {
			e := reflect.New(v.Type().Elem()).Elem()
			fill(e, depth-1, nonzero)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), e)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "TypeMeta" && f.Tag.Get("protobuf") != "" {
				fill(v.Field(i), depth-1, nonzero)
			}
		}
	case reflect.String:
		if nonzero {
			v.SetString("text <&> \u2028")
		}
	case reflect.Bool:
		v.SetBool(nonzero)
	case reflect.Int32, reflect.Int64:
		if nonzero {
			v.SetInt(-7)
		}
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		if nonzero {
			v.SetUint(200)
		}
	case reflect.Float64:
		if nonzero {
			v.SetFloat(-0.25)
		}
	}
}

// fillSpecial sets a value through its JSON.
func fillSpecial(v reflect.Value, nonzero bool) {
	if !nonzero {
		return
	}
	text := map[string]string{
		"time": `"2026-01-02T03:04:05Z"`, "micro": `"2026-01-02T03:04:05.678901Z"`, "duration": `"1h2m3.5s"`,
		"quantity": `"1500m"`, "intstr": `"80%"`, "raw": `{"a":[1,2.5,"x",null,{"b":true}],"c":-9007199254740993}`,
	}[special[v.Type().PkgPath()+"."+v.Type().Name()]]
	if err := json.Unmarshal([]byte(text), v.Addr().Interface()); err != nil {
		panic(err)
	}
}
