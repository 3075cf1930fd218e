package resource

import (
	"encoding/json"
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// The types by which server-side apply merges: which lists are sets or maps, and
// what is replaced as a whole.

// Names of the types of what no schema describes: maps merge, lists are replaced.
const (
	deducedType = "__untyped_deduced_"
	atomicType  = "__untyped_atomic_"
)

func untyped() (deduced, atomic schema.TypeDef) {
	scalar := schema.Untyped
	ref := func(name string) schema.TypeRef { return schema.TypeRef{NamedType: &name} }
	atomic = schema.TypeDef{Name: atomicType, Atom: schema.Atom{Scalar: &scalar,
		List: &schema.List{ElementType: ref(atomicType), ElementRelationship: schema.Atomic},
		Map:  &schema.Map{ElementType: ref(atomicType), ElementRelationship: schema.Atomic}}}
	deduced = schema.TypeDef{Name: deducedType, Atom: schema.Atom{Scalar: &scalar,
		List: &schema.List{ElementType: ref(atomicType), ElementRelationship: schema.Atomic},
		Map:  &schema.Map{ElementType: ref(deducedType), ElementRelationship: schema.Separable}}}
	return deduced, atomic
}

// mergeType is the type of a kind's objects, made once.
func (k *Kind) mergeType() typed.ParseableType {
	k.merging.Do(func() {
		b := &typeBuilder{done: map[string]bool{}}
		deduced, atomic := untyped()
		b.out.Types = append(b.out.Types, deduced, atomic)
		var ref schema.TypeRef
		switch {
		case k.Layout != nil:
			ref = b.message(k.Layout)
		case k.Schema != nil:
			ref = schema.TypeRef{Inlined: b.defined(k.Schema, true)}
		default:
			ref = typeNamed(deducedType)
		}
		k.mergeAs = typed.ParseableType{Schema: &b.out, TypeRef: ref}
	})
	return k.mergeAs
}

type typeBuilder struct {
	out  schema.Schema
	done map[string]bool
}

func typeNamed(name string) schema.TypeRef { return schema.TypeRef{NamedType: &name} }

func scalar(s schema.Scalar) schema.TypeRef {
	return schema.TypeRef{Inlined: schema.Atom{Scalar: &s}}
}

// message adds a message's type, and those that it refers to.
func (b *typeBuilder) message(m *kinds.Message) schema.TypeRef {
	if !b.done[m.Name] {
		b.done[m.Name] = true
		all := &schema.Map{ElementRelationship: schema.Separable}
		b.fields(m, all)
		for _, name := range []string{"apiVersion", "kind"} {
			if !slices.ContainsFunc(all.Fields, func(f schema.StructField) bool { return f.Name == name }) {
				all.Fields = append(all.Fields, schema.StructField{Name: name, Type: scalar(schema.String)})
			}
		}
		b.out.Types = append(b.out.Types, schema.TypeDef{Name: m.Name, Atom: schema.Atom{Map: all}})
	}
	return typeNamed(m.Name)
}

func (b *typeBuilder) fields(m *kinds.Message, to *schema.Map) {
	for i := range m.Fields {
		f := &m.Fields[i]
		if f.Inline {
			b.fields(f.Message, to)
			continue
		}
		field := schema.StructField{Name: f.Name, Type: b.field(f)}
		if f.Name == "protocol" {
			field.Default = "TCP" // part of the keys of ports, and often left out
		}
		to.Fields = append(to.Fields, field)
	}
}

func (b *typeBuilder) field(f *kinds.Field) schema.TypeRef {
	var element schema.TypeRef
	switch f.Type {
	case kinds.Struct:
		if element = b.message(f.Message); f.Message.Union {
			element = typeNamed(deducedType)
		}
	case kinds.Int, kinds.Uint, kinds.Double:
		element = scalar(schema.Numeric)
	case kinds.Bool:
		element = scalar(schema.Boolean)
	case kinds.String, kinds.Bytes:
		element = scalar(schema.String)
	case kinds.Raw:
		element = typeNamed(deducedType)
	default:
		element = scalar(schema.Untyped)
	}
	switch {
	case f.Map:
		if f.Wrapped {
			element = schema.TypeRef{Inlined: schema.Atom{List: &schema.List{ElementType: element, ElementRelationship: schema.Atomic}}}
		}
		return schema.TypeRef{Inlined: schema.Atom{Map: &schema.Map{ElementType: element, ElementRelationship: relation(f.Merge, schema.Separable)}}}
	case f.List:
		return schema.TypeRef{Inlined: schema.Atom{List: &schema.List{ElementType: element, ElementRelationship: relation(f.Merge, schema.Atomic), Keys: f.MapKeys}}}
	case f.Type == kinds.Struct && f.Merge == "atomic":
		whole := schema.Atomic
		element.ElementRelationship = &whole
	}
	return element
}

func relation(merge string, usual schema.ElementRelationship) schema.ElementRelationship {
	switch merge {
	case "atomic":
		return schema.Atomic
	case "granular":
		return schema.Separable
	case "set", "map":
		return schema.Associative
	}
	return usual
}

// defined is the type of a schema that somebody defined. At its top, and where an
// object is embedded, stands metadata.
func (b *typeBuilder) defined(s *Schema, top bool) schema.Atom {
	deduced, _ := untyped()
	untypedScalar := schema.Untyped
	switch {
	case s.intOrStr:
		return schema.Atom{Scalar: &untypedScalar}
	case s.types == "array":
		element := typeNamed(deducedType)
		if s.items != nil {
			element = schema.TypeRef{Inlined: b.defined(s.items, false)}
		}
		return schema.Atom{List: &schema.List{ElementType: element, Keys: object.Strings(s.raw, "x-kubernetes-list-map-keys"),
			ElementRelationship: relation(object.String(s.raw, "x-kubernetes-list-type"), schema.Atomic)}}
	case s.types == "object" || top:
		return schema.Atom{Map: b.definedMap(s, top)}
	case s.types == "string":
		return scalar(schema.String).Inlined
	case s.types == "boolean":
		return scalar(schema.Boolean).Inlined
	case s.types == "integer" || s.types == "number":
		return scalar(schema.Numeric).Inlined
	}
	return deduced.Atom
}

func (b *typeBuilder) definedMap(s *Schema, top bool) *schema.Map {
	m := &schema.Map{ElementRelationship: relation(object.String(s.raw, "x-kubernetes-map-type"), schema.Separable)}
	for name, sub := range s.properties {
		if top && slices.Contains(topFields, name) {
			continue
		}
		m.Fields = append(m.Fields, schema.StructField{Name: name, Type: schema.TypeRef{Inlined: b.defined(sub, false)}, Default: plain(sub.byDefault)})
	}
	if top || s.embedded {
		m.Fields = append(m.Fields,
			schema.StructField{Name: "apiVersion", Type: scalar(schema.String)}, schema.StructField{Name: "kind", Type: scalar(schema.String)},
			schema.StructField{Name: "metadata", Type: b.message(objectMeta())})
	}
	switch {
	case s.others != nil:
		m.ElementType = schema.TypeRef{Inlined: b.defined(s.others, false)}
	case s.anyOther:
		m.ElementType = typeNamed(deducedType)
	}
	return m
}

// plain is a value with numbers as the merge library has them.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case object.Object:
		out := make(object.Object, len(v))
		for name, e := range v {
			out[name] = plain(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plain(e)
		}
		return out
	}
	return v
}
