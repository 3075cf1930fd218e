package resource

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// OpenAPI v3: an index, and a document for each group and version with the schemas
// of its kinds, which kubectl reads to check, to merge and to explain.

// openAPI answers /openapi/v3 and what is below it.
func (c *call) openAPI(path string) error {
	cat := c.layer.catalog.Load()
	if path == "" {
		paths := object.Object{}
		for _, gv := range cat.versions() {
			at := openAPIPath(gv)
			sum := sha256.Sum256(cat.document(gv))
			paths[at] = object.Object{"serverRelativeURL": "/openapi/v3/" + at + "?hash=" + strings.ToUpper(hex.EncodeToString(sum[:]))}
		}
		return c.send(http.StatusOK, object.Encode(object.Object{"paths": paths}))
	}
	for _, gv := range cat.versions() {
		if "/"+openAPIPath(gv) == path {
			if c.query.Get("hash") != "" {
				c.w.Header().Set("Cache-Control", "public, immutable") // another hash is another document
			}
			return c.send(http.StatusOK, cat.document(gv))
		}
	}
	return noSuchPath()
}

func openAPIPath(gv [2]string) string {
	if gv[0] == "" {
		return "api/" + gv[1]
	}
	return "apis/" + gv[0] + "/" + gv[1]
}

// document is the OpenAPI document of a group and version, made when it is first asked for.
func (c *catalog) document(gv [2]string) []byte {
	c.docs.Lock()
	defer c.docs.Unlock()
	if d, ok := c.docs.made[gv]; ok {
		return d
	}
	schemas, paths := object.Object{}, object.Object{}
	for _, k := range c.kinds {
		if k.Group == gv[0] && k.Version == gv[1] {
			describeKind(k, schemas, paths)
		}
	}
	d := object.Encode(object.Object{
		"openapi": "3.0.0", "info": object.Object{"title": "Kubernetes", "version": kubernetesVersion},
		"paths": paths, "components": object.Object{"schemas": schemas},
	})
	c.docs.made[gv] = d
	return d
}

func groupVersionKind(k *Kind) object.Object {
	return object.Object{"group": k.Group, "version": k.Version, "kind": k.Name}
}

// describeKind adds a kind's schemas and paths to a document.
func describeKind(k *Kind, schemas, paths object.Object) {
	var name string
	switch {
	case k.Layout != nil:
		name = k.Layout.Name
		describeMessage(k.Layout, schemas)
	default:
		name = schemaName(k)
		schemas[name] = k.openSchema()
		describeMessage(objectMeta(), schemas)
	}
	if s, ok := schemas[name].(object.Object); ok {
		s["x-kubernetes-group-version-kind"] = []any{groupVersionKind(k)}
	}
	base := "/api/" + k.Version
	if k.Group != "" {
		base = "/apis/" + k.Group + "/" + k.Version
	}
	if k.Namespaced {
		base += "/namespaces/{namespace}"
	}
	base += "/" + k.Plural
	add := func(path, method, verb string) {
		if k.can(verb) {
			object.Set(paths, operation(k, method, name), path, method)
		}
	}
	add(base, "post", "create")
	add(base+"/{name}", "get", "get")
	add(base+"/{name}", "put", "update")
	add(base+"/{name}", "patch", "patch")
}

// operation says what kubectl wants to know of a method: that it can check fields
// and do a dry run.
func operation(k *Kind, action, schema string) object.Object {
	parameter := func(name string) object.Object {
		return object.Object{"name": name, "in": "query", "schema": object.Object{"type": "string", "uniqueItems": true}}
	}
	o := object.Object{
		"x-kubernetes-action": action, "x-kubernetes-group-version-kind": groupVersionKind(k),
		"responses": object.Object{"200": object.Object{"description": "OK", "content": object.Object{
			jsonType: object.Object{"schema": object.Object{"$ref": "#/components/schemas/" + schema}}}}},
	}
	if action != "get" {
		o["parameters"] = []any{parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")}
	}
	return o
}

// describeMessage adds the schema of a message, and of what it refers to.
func describeMessage(m *kinds.Message, schemas object.Object) {
	if _, done := schemas[m.Name]; done {
		return
	}
	schema := object.Object{"type": "object"}
	schemas[m.Name] = schema
	descriptions()[m.Name].describe(schema)
	properties := object.Object{}
	addProperties(m, properties, schemas)
	// Objects carry what they are, although protobuf has it outside.
	for _, name := range []string{"apiVersion", "kind"} {
		if m.Kind && properties[name] == nil {
			properties[name] = object.Object{"type": "string"}
		}
	}
	var required []any
	for name, v := range object.Sorted(properties) {
		d, known := descriptions()[m.Name+" "+name]
		if _, of := descriptions()[m.Name]; of && !known {
			delete(properties, name) // the table is newer than the release that is followed
			continue
		}
		d.describe(v.(object.Object))
		if d.required {
			required = append(required, name)
		}
	}
	if len(properties) > 0 {
		schema["properties"] = properties
	}
	if required != nil {
		schema["required"] = required
	}
}

func addProperties(m *kinds.Message, properties, schemas object.Object) {
	for i := range m.Fields {
		f := &m.Fields[i]
		if f.Inline {
			addProperties(f.Message, properties, schemas)
			continue
		}
		properties[f.Name] = fieldSchema(f, schemas)
	}
}

func fieldSchema(f *kinds.Field, schemas object.Object) object.Object {
	s := valueSchema(f, schemas)
	switch {
	case f.Map && f.Wrapped:
		s = object.Object{"type": "object", "additionalProperties": object.Object{"type": "array", "items": s}}
	case f.Map:
		s = object.Object{"type": "object", "additionalProperties": s}
	case f.List:
		s = object.Object{"type": "array", "items": s}
	}
	if f.PatchStrategy != "" {
		s["x-kubernetes-patch-strategy"] = f.PatchStrategy
	}
	if f.MergeKey != "" {
		s["x-kubernetes-patch-merge-key"] = f.MergeKey
	}
	if f.Merge != "" {
		if f.List {
			s["x-kubernetes-list-type"] = f.Merge
		} else {
			s["x-kubernetes-map-type"] = f.Merge
		}
	}
	if len(f.MapKeys) > 0 {
		s["x-kubernetes-list-map-keys"] = object.Anys(f.MapKeys)
	}
	return s
}

func valueSchema(f *kinds.Field, schemas object.Object) object.Object {
	switch f.Type {
	case kinds.Struct:
		describeMessage(f.Message, schemas)
		return reference(f.Message.Name)
	case kinds.Int, kinds.Uint:
		if f.Narrow {
			return object.Object{"type": "integer", "format": "int32"}
		}
		return object.Object{"type": "integer", "format": "int64"}
	case kinds.Bool:
		return object.Object{"type": "boolean"}
	case kinds.Double:
		return object.Object{"type": "number", "format": "double"}
	case kinds.Bytes:
		return object.Object{"type": "string", "format": "byte"}
	case kinds.Time:
		return namedScalar("io.k8s.apimachinery.pkg.apis.meta.v1.Time", object.Object{"type": "string", "format": "date-time"}, schemas)
	case kinds.Micro:
		return namedScalar("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", object.Object{"type": "string", "format": "date-time"}, schemas)
	case kinds.Quantity:
		return namedScalar("io.k8s.apimachinery.pkg.api.resource.Quantity",
			object.Object{"oneOf": []any{object.Object{"type": "string"}, object.Object{"type": "number"}}}, schemas)
	case kinds.IntStr:
		return namedScalar("io.k8s.apimachinery.pkg.util.intstr.IntOrString",
			object.Object{"format": "int-or-string", "oneOf": []any{object.Object{"type": "integer"}, object.Object{"type": "string"}}}, schemas)
	case kinds.Raw:
		if f.Name == "fieldsV1" {
			return namedScalar("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", object.Object{"type": "object"}, schemas)
		}
		return object.Object{"type": "object"}
	}
	return object.Object{"type": "string"}
}

// reference stands alone in OpenAPI 3.0: what else is said needs allOf.
func reference(name string) object.Object {
	return object.Object{"allOf": []any{object.Object{"$ref": "#/components/schemas/" + name}}, "default": object.Object{}}
}

// namedScalar is a reference to a type that is no message.
func namedScalar(name string, schema, schemas object.Object) object.Object {
	if _, done := schemas[name]; !done {
		descriptions()[name].describe(schema)
		schemas[name] = schema
	}
	r := reference(name)
	delete(r, "default")
	return r
}

// schemaName is the name of a custom kind's schema: its group turned around.
func schemaName(k *Kind) string {
	parts := strings.Split(k.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, k.Version, k.Name), ".")
}

// openSchema is a custom kind's schema as documents have it.
func (k *Kind) openSchema() object.Object {
	s := object.Object{"type": "object"}
	if k.Schema != nil {
		s = k.Schema.document()
	}
	if object.Map(s, "properties") == nil {
		s["properties"] = object.Object{}
	}
	// What every object has is described as it is of any built-in kind.
	like := kinds.Lookup("v1", "ConfigMap").Name
	for name, v := range map[string]object.Object{
		"apiVersion": {"type": "string"}, "kind": {"type": "string"},
		"metadata": {"allOf": []any{object.Object{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}}},
	} {
		descriptions()[like+" "+name].describe(v)
		object.Set(s, v, "properties", name)
	}
	return s
}
