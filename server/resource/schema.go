package resource

import (
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Schema is a structural schema of a custom kind: what objects must be like, which
// fields they have, and what stands in for those that are absent. Rules in CEL
// (x-kubernetes-validations) are kept and shown, and not evaluated.
type Schema struct {
	raw        object.Object
	types      string
	properties map[string]*Schema
	items      *Schema
	others     *Schema // of additionalProperties
	anyOther   bool    // additionalProperties: true, or unknown fields are preserved
	required   []string
	enum       []any
	pattern    *regexp.Regexp
	nullable   bool
	intOrStr   bool
	embedded   bool // the value is an object with metadata of its own
	byDefault  any
	all        []*Schema
	any        []*Schema
	one        []*Schema
	not        *Schema
}

// newSchema reads a schema as a definition has it.
func newSchema(o object.Object, path string) (*Schema, error) {
	s := &Schema{raw: o, types: object.String(o, "type"), required: object.Strings(o, "required"), enum: object.List(o, "enum"), byDefault: o["default"]}
	s.nullable, _ = o["nullable"].(bool)
	s.intOrStr, _ = o["x-kubernetes-int-or-string"].(bool)
	s.embedded, _ = o["x-kubernetes-embedded-resource"].(bool)
	s.anyOther, _ = o["x-kubernetes-preserve-unknown-fields"].(bool)
	var err error
	if p := object.String(o, "pattern"); p != "" {
		if s.pattern, err = regexp.Compile(p); err != nil {
			return nil, fmt.Errorf("%s.pattern: %w", path, err)
		}
	}
	below := func(name string, v any) (*Schema, error) {
		sub, ok := v.(object.Object)
		if !ok {
			return nil, fmt.Errorf("%s.%s is no schema", path, name)
		}
		return newSchema(sub, path+"."+name)
	}
	if properties := object.Map(o, "properties"); properties != nil {
		s.properties = make(map[string]*Schema, len(properties))
		for name, v := range properties {
			if s.properties[name], err = below("properties["+name+"]", v); err != nil {
				return nil, err
			}
		}
	}
	switch v := o["additionalProperties"].(type) {
	case bool:
		s.anyOther = s.anyOther || v
	case object.Object:
		if s.others, err = below("additionalProperties", v); err != nil {
			return nil, err
		}
	}
	for name, to := range map[string]**Schema{"items": &s.items, "not": &s.not} {
		if v, ok := o[name]; ok {
			if *to, err = below(name, v); err != nil {
				return nil, err
			}
		}
	}
	for name, to := range map[string]*[]*Schema{"allOf": &s.all, "anyOf": &s.any, "oneOf": &s.one} {
		for i, v := range object.List(o, name) {
			sub, err := below(fmt.Sprintf("%s[%d]", name, i), v)
			if err != nil {
				return nil, err
			}
			*to = append(*to, sub)
		}
	}
	return s, nil
}

// document is the schema as OpenAPI documents have it.
func (s *Schema) document() object.Object { return object.Copy(s.raw) }

// topFields are every object's own: schemas do not describe them.
var topFields = []string{"apiVersion", "kind", "metadata"}

// unknown names the fields that the schema does not have.
func (s *Schema) unknown(v any, path string) (out []string) {
	s.walkUnknown(v, path, func(_ object.Object, _, at string) { out = append(out, at) })
	slices.Sort(out)
	return out
}

// prune changes an object: fields that the schema does not have are gone.
func (s *Schema) prune(o object.Object) {
	s.walkUnknown(o, "", func(in object.Object, name, _ string) { delete(in, name) })
}

func (s *Schema) walkUnknown(v any, path string, found func(in object.Object, name, at string)) {
	switch v := v.(type) {
	case object.Object:
		for name, e := range object.Elements(v) {
			at := name
			if path != "" {
				at = path + "." + name
			}
			sub := s.properties[name]
			switch {
			case slices.Contains(topFields, name) && (path == "" || s.embedded):
			case sub != nil:
				sub.walkUnknown(e, at, found)
			case s.others != nil:
				s.others.walkUnknown(e, at, found)
			case !s.anyOther:
				found(v, name, at)
			}
		}
	case []any:
		if s.items == nil {
			return
		}
		for i, e := range v {
			s.items.walkUnknown(e, fmt.Sprintf("%s[%d]", path, i), found)
		}
	}
}

// fill changes an object: defaults stand where nothing does.
func (s *Schema) fill(v any) {
	switch v := v.(type) {
	case object.Object:
		for name, sub := range s.properties {
			if have, ok := v[name]; (!ok || have == nil && !sub.nullable) && sub.byDefault != nil {
				v[name] = object.Copy(sub.byDefault)
			}
			sub.fill(v[name])
		}
		if s.others != nil {
			for _, e := range object.Elements(v) {
				s.others.fill(e)
			}
		}
	case []any:
		if s.items != nil {
			for _, e := range v {
				s.items.fill(e)
			}
		}
	}
}

// check says what is wrong with an object.
func (s *Schema) check(o object.Object, path string) []Cause {
	return s.checkValue(o, path)
}

func (s *Schema) checkValue(v any, path string) (causes []Cause) {
	if v == nil {
		if s.nullable || s.types == "" {
			return nil
		}
		return []Cause{{causeInvalid, fmt.Sprintf(`Invalid value: "null": %s in body must be of type %s: "null"`, path, s.types), path}}
	}
	if kind := typeOf(v); !s.takes(v, kind) {
		return []Cause{{causeType, fmt.Sprintf("Invalid value: %q: %s in body must be of type %s: %q", kind, path, s.types, kind), path}}
	}
	if len(s.enum) > 0 && !slices.ContainsFunc(s.enum, func(e any) bool { return object.Equal(e, v) }) {
		allowed := ""
		for i, e := range s.enum {
			if i > 0 {
				allowed += ", "
			}
			allowed += string(object.AppendString(nil, object.Text(e)))
		}
		causes = append(causes, Cause{causeSupported, fmt.Sprintf("Unsupported value: %s: supported values: %s", object.AppendValue(nil, v), allowed), path})
	}
	switch v := v.(type) {
	case object.Object:
		causes = append(causes, s.checkObject(v, path)...)
	case []any:
		causes = append(causes, s.bound("minItems", "maxItems", int64(len(v)), v, path, "items")...)
		if s.items != nil {
			for i, e := range v {
				causes = append(causes, s.items.checkValue(e, fmt.Sprintf("%s[%d]", path, i))...)
			}
		}
	case string:
		causes = append(causes, s.bound("minLength", "maxLength", int64(utf8.RuneCountInString(v)), v, path, "chars long")...)
		if s.pattern != nil && !s.pattern.MatchString(v) {
			causes = append(causes, Cause{causeInvalid, fmt.Sprintf("Invalid value: %q: %s in body should match '%s'", v, path, s.pattern), path})
		}
	default:
		causes = append(causes, s.checkNumber(v, path)...)
	}
	return append(causes, s.checkCombined(v, path)...)
}

func (s *Schema) checkObject(v object.Object, path string) (causes []Cause) {
	for _, name := range s.required {
		if _, ok := v[name]; !ok {
			causes = append(causes, Cause{causeRequired, "Required value", join(path, name)})
		}
	}
	for name, e := range object.Elements(v) {
		if slices.Contains(topFields, name) && (path == "" || s.embedded) {
			continue
		}
		if sub := s.properties[name]; sub != nil {
			causes = append(causes, sub.checkValue(e, join(path, name))...)
		} else if s.others != nil {
			causes = append(causes, s.others.checkValue(e, join(path, name))...)
		}
	}
	return append(causes, s.bound("minProperties", "maxProperties", int64(len(v)), v, path, "properties")...)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// bound checks a length against the schema's least and most.
func (s *Schema) bound(least, most string, n int64, v any, path, unit string) (causes []Cause) {
	if m, ok := object.Whole(s.raw[least]); ok && n < m {
		causes = append(causes, Cause{causeInvalid, fmt.Sprintf("Invalid value: %s: %s in body should have at least %d %s", object.AppendValue(nil, v), path, m, unit), path})
	}
	if m, ok := object.Whole(s.raw[most]); ok && n > m {
		causes = append(causes, tooMuch(n, m, unit, path))
	}
	return causes
}

// tooMuch is what a kube-apiserver says of a text, a list or a map that is too long.
func tooMuch(n, most int64, unit, path string) Cause {
	switch unit {
	case "items":
		return Cause{"FieldValueTooMany", fmt.Sprintf("Too many: %d: must have at most %d items", n, most), path}
	case "chars long":
		return Cause{"FieldValueTooLong", fmt.Sprintf("Too long: may not be more than %d bytes", most), path}
	}
	return Cause{causeInvalid, fmt.Sprintf("Invalid value: %s in body should have at most %d %s", path, most, unit), path}
}

func (s *Schema) checkNumber(v any, path string) (causes []Cause) {
	n, ok := object.Number(v)
	if !ok {
		return nil
	}
	wrong := func(text string, limit any) {
		causes = append(causes, Cause{causeInvalid, fmt.Sprintf("Invalid value: %s: %s in body should be %s %s", object.AppendValue(nil, v), path, text, object.AppendValue(nil, limit)), path})
	}
	exclusive := func(name string) bool { b, _ := s.raw[name].(bool); return b }
	if m, ok := object.Number(s.raw["minimum"]); ok && (n < m || n == m && exclusive("exclusiveMinimum")) {
		wrong("greater than or equal to", s.raw["minimum"])
	}
	if m, ok := object.Number(s.raw["maximum"]); ok && (n > m || n == m && exclusive("exclusiveMaximum")) {
		wrong("less than or equal to", s.raw["maximum"])
	}
	if m, ok := object.Number(s.raw["multipleOf"]); ok && m != 0 && n/m != float64(int64(n/m)) {
		wrong("a multiple of", s.raw["multipleOf"])
	}
	return causes
}

// checkCombined checks allOf, anyOf, oneOf and not.
func (s *Schema) checkCombined(v any, path string) (causes []Cause) {
	for _, sub := range s.all {
		causes = append(causes, sub.checkValue(v, path)...)
	}
	holds := func(list []*Schema) (n int) {
		for _, sub := range list {
			if len(sub.checkValue(v, path)) == 0 {
				n++
			}
		}
		return n
	}
	wrong := func(text string) {
		causes = append(causes, Cause{causeInvalid, fmt.Sprintf("Invalid value: %q: %s in body must validate %s", "", path, text), path})
	}
	if len(s.any) > 0 && !s.intOrStr && holds(s.any) == 0 {
		wrong("at least one schema (anyOf)")
	}
	if len(s.one) > 0 && holds(s.one) != 1 {
		wrong("one and only one schema (oneOf)")
	}
	if s.not != nil && len(s.not.checkValue(v, path)) == 0 {
		causes = append(causes, Cause{causeInvalid, fmt.Sprintf("Invalid value: %q: %s in body must not validate the schema (not)", "", path), path})
	}
	return causes
}

// typeOf is a value's type in the words of schemas.
func typeOf(v any) string {
	switch v.(type) {
	case object.Object:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	}
	if _, ok := object.Whole(v); ok {
		return "integer"
	}
	return "number"
}

func (s *Schema) takes(v any, kind string) bool {
	switch {
	case s.intOrStr:
		return kind == "integer" || kind == "string"
	case s.types == "" || s.types == kind:
		return true
	case s.types == "integer":
		n, ok := object.Number(v)
		return ok && n == float64(int64(n))
	}
	return s.types == "number" && kind == "integer"
}
