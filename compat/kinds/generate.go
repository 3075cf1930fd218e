package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// table is being filled with messages.
type table struct {
	messages map[reflect.Type]string // the name of each, once it is being described
	lines    map[string][]string     // of each message, by its name
	markers  markers
}

// generate describes all kinds and the messages below them. The format is in
// api/kinds/table.go.
func generate() (string, error) {
	s, err := scheme()
	if err != nil {
		return "", err
	}
	t := &table{messages: map[reflect.Type]string{}, lines: map[string][]string{}, markers: markers{}}
	kinds := map[string]string{}
	for gvk, typ := range s.AllKnownTypes() {
		if gvk.Version == "__internal" || !isKind(typ) {
			continue
		}
		name, err := t.message(typ)
		if err != nil {
			return "", fmt.Errorf("%v: %w", gvk, err)
		}
		version := gvk.GroupVersion().String()
		if strings.HasPrefix(name, "io.k8s.apimachinery.") && gvk.Group != "meta.k8s.io" {
			version = "*" // registered in every group
		}
		kinds[version+" "+gvk.Kind] = name
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# %s\n", strings.Join(versions(), ", "))
	for _, name := range slices.Sorted(maps.Keys(t.lines)) {
		fmt.Fprintf(&out, "%s\n", strings.Join(t.lines[name], "\n"))
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(&out, "kind %s %s\n", kind, kinds[kind])
	}
	return out.String(), nil
}

// isKind reports whether a type is a kind that protobuf can carry. A few of the
// machinery's exist in JSON only.
func isKind(typ reflect.Type) bool {
	if _, ok := typ.FieldByName("TypeMeta"); !ok {
		return false
	}
	for i := range typ.NumField() {
		if typ.Field(i).Tag.Get("protobuf") != "" {
			return true
		}
	}
	return false
}

// versions are those of the modules that the kinds come from.
func versions() (out []string) {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == "k8s.io/api" || m.Path == "k8s.io/apiextensions-apiserver" || m.Path == "k8s.io/kube-aggregator" {
			out = append(out, m.Path+" "+m.Version)
		}
	}
	return out
}

// message describes a struct type and returns its name.
func (t *table) message(typ reflect.Type) (string, error) {
	if name, ok := t.messages[typ]; ok {
		return name, nil
	}
	name := modelName(typ)
	t.messages[typ] = name
	head := "message " + name
	union := isUnion(typ)
	if union {
		head += " union"
	}
	marks, err := t.markers.of(typ)
	if err != nil {
		return "", err
	}
	type numbered struct {
		n    int
		line string
	}
	var fields []numbered
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag := f.Tag.Get("protobuf")
		if tag == "" || tag == "-" {
			if f.IsExported() && f.Name != "TypeMeta" && f.Tag.Get("json") != "-" {
				return "", fmt.Errorf("%s.%s has no protobuf tag", name, f.Name)
			}
			continue
		}
		n, err := strconv.Atoi(strings.Split(tag, ",")[1])
		if err != nil {
			return "", fmt.Errorf("%s.%s: %w", name, f.Name, err)
		}
		line, err := t.field(f, union)
		if err != nil {
			return "", fmt.Errorf("%s.%s: %w", name, f.Name, err)
		}
		mark := marks[f.Name]
		if of := f.Type; mark == "" {
			if of.Kind() == reflect.Pointer {
				of = of.Elem()
			}
			if of.Kind() == reflect.Struct && special[of.PkgPath()+"."+of.Name()] == "" {
				its, err := t.markers.of(of)
				if err != nil {
					return "", err
				}
				mark = its[ofType]
			}
		}
		fields = append(fields, numbered{n, strings.TrimRight(fmt.Sprintf("%d %s %s", n, line, mark), " ")})
	}
	sort.Slice(fields, func(a, b int) bool { return fields[a].n < fields[b].n })
	lines := []string{head}
	for _, f := range fields {
		lines = append(lines, f.line)
	}
	if t.lines[name] != nil {
		return "", fmt.Errorf("two types are called %s", name)
	}
	t.lines[name] = lines
	return name, nil
}

func modelName(typ reflect.Type) string {
	if m, ok := reflect.Zero(typ).Interface().(interface{ OpenAPIModelName() string }); ok {
		return m.OpenAPIModelName()
	}
	return strings.ReplaceAll(typ.PkgPath(), "/", ".") + "." + typ.Name()
}

// isUnion reports whether a message stands in JSON as the one member that it
// has, without an object around it.
func isUnion(typ reflect.Type) bool {
	return typ.Implements(reflect.TypeFor[json.Marshaler]()) && strings.HasPrefix(typ.Name(), "JSONSchemaPropsOr")
}

// field describes a field, but for its number.
func (t *table) field(f reflect.StructField, union bool) (string, error) {
	js := strings.Split(f.Tag.Get("json"), ",")
	name, flags := js[0], ""
	for _, option := range js[1:] {
		switch option {
		case "omitempty":
			flags += "o"
		case "omitzero":
			flags += "z"
		case "inline":
			flags += "i"
		default:
			return "", fmt.Errorf("json option %q", option)
		}
	}
	switch {
	case union:
		name = strings.ToLower(f.Name)
	case name == "" && !f.Anonymous || name == "-":
		return "", fmt.Errorf("json name %q", f.Tag.Get("json"))
	case name == "":
		name = "-"
		if !strings.Contains(flags, "i") {
			flags += "i"
		}
	}
	typ := f.Type
	if typ.Kind() == reflect.Pointer {
		flags += "p"
		typ = typ.Elem()
	}
	if k := typ.Kind(); k == reflect.Int32 || k == reflect.Uint32 || k == reflect.Slice && typ.Elem().Kind() == reflect.Int32 {
		flags += "n"
	}
	kind, shape, err := t.kind(typ)
	if err != nil {
		return "", err
	}
	line := name + " " + kind + " -" + shape + flags
	if s := f.Tag.Get("patchStrategy"); s != "" {
		line += " patch=" + s
		if key := f.Tag.Get("patchMergeKey"); key != "" {
			line += ":" + key
		}
	}
	return line, nil
}

// special are the types with a JSON of their own.
var special = map[string]string{
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                          "time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                     "micro",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                      "duration",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                      "raw",
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                      "quantity",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                    "intstr",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                       "raw",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":      "raw",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1.JSON": "raw",
}

// kind is the type of a value, and its shape: m for a map of it, r for a list
// of it, w for a list in a message of its own, which a map may have as values.
func (t *table) kind(typ reflect.Type) (kind, shape string, err error) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if k := special[typ.PkgPath()+"."+typ.Name()]; k != "" {
		return k, "", nil
	}
	if typ.Kind() != reflect.Struct || !isUnion(typ) {
		if typ.Implements(reflect.TypeFor[json.Marshaler]()) || typ.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
			return "", "", fmt.Errorf("%s has a JSON of its own", typ)
		}
	}
	switch typ.Kind() {
	case reflect.String:
		return "string", "", nil
	case reflect.Bool:
		return "bool", "", nil
	case reflect.Int32, reflect.Int64, reflect.Uint8:
		return "int", "", nil
	case reflect.Uint32, reflect.Uint64:
		return "uint", "", nil
	case reflect.Float64:
		return "double", "", nil
	case reflect.Struct:
		kind, err = t.message(typ)
		return kind, "", err
	case reflect.Map:
		kind, shape, err = t.kind(typ.Elem())
		return kind, "m" + shape, err
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 {
			return "bytes", "", nil
		}
		kind, shape, err = t.kind(typ.Elem())
		if _, own := reflect.Zero(reflect.PointerTo(typ)).Interface().(interface{ Unmarshal([]byte) error }); own {
			return kind, "w" + shape, err
		}
		return kind, "r" + shape, err
	}
	return "", "", fmt.Errorf("no description of %s", typ)
}
