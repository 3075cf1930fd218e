package resource

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Pure functions from what is stored and what a client sent to what is to be
// stored. They return new objects.

// timestamp is a time as objects have it.
func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// identify checks that an object is what and where the request says, and fills in
// what the object leaves out.
func identify(k *Kind, o object.Object, namespace string) error {
	version, kind := object.String(o, "apiVersion"), object.String(o, "kind")
	if k.Custom && (version == "" || kind == "") {
		return badRequest("Object 'Kind' is missing in '%s'", object.Encode(o))
	}
	if kind != "" && kind != k.Name {
		return badRequest("%s in the data does not match the expected kind %s", kind, k.Name)
	}
	if version != "" && version != k.APIVersion() {
		return badRequest("the API version in the data (%s) does not match the expected API version (%s)", version, k.APIVersion())
	}
	o["apiVersion"], o["kind"] = k.APIVersion(), k.Name
	if m, given := o["metadata"]; given && m != nil {
		if _, ok := m.(object.Object); !ok {
			return badRequest("metadata is no object")
		}
	}
	meta := object.Map(o, "metadata")
	if meta == nil {
		meta = object.Object{}
		o["metadata"] = meta
	}
	delete(meta, "selfLink")
	if !k.Namespaced {
		if ns := object.String(meta, "namespace"); ns != "" {
			return badRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
		delete(meta, "namespace")
		return nil
	}
	if ns := object.String(meta, "namespace"); ns != "" && ns != namespace {
		return badRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	meta["namespace"] = namespace
	return nil
}

// prepareCreate makes a new object of what a client sent: system fields are the
// server's.
//
// account notes who wrote which field, before admission adds what nobody wrote;
// nil: nobody asks.
func prepareCreate(k *Kind, sent object.Object, uid string, now time.Time, account func(object.Object) error) (object.Object, error) {
	o := object.Copy(sent)
	meta := object.Map(o, "metadata")
	if object.String(meta, "resourceVersion") != "" {
		return nil, badRequest("resourceVersion should not be set on objects to be created")
	}
	for _, name := range []string{"deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"} {
		delete(meta, name)
	}
	meta["uid"], meta["creationTimestamp"] = uid, timestamp(now)
	if k.Generation {
		meta["generation"] = int64(1)
	}
	if k.Status && k.Plural != "nodes" {
		carry(o, k.blank(), "status") // is somebody else's; a kubelet makes its node with one
	}
	applyDefaults(k, o)
	tidyMeta(meta)
	if account != nil {
		if err := account(o); err != nil {
			return nil, err
		}
	}
	admit(k, o)
	return o, checkObject(k, o, nil)
}

// updateOptions say which part of an object a request may write.
type updateOptions struct {
	// sub is "", status, or another subresource, whose objects were made of the stored one.
	sub string
	// unconditional: no resource version in the body means that any will do.
	unconditional bool
}

// prepareUpdate makes of what is stored and what a client sent the object to be
// stored.
func prepareUpdate(k *Kind, old, sent object.Object, opts updateOptions) (object.Object, error) {
	name := object.String(old, "metadata", "name")
	if uid := object.String(sent, "metadata", "uid"); uid != "" && uid != object.String(old, "metadata", "uid") {
		return nil, conflict(k, name, fmt.Sprintf("Precondition failed: UID in precondition: %s, UID in object meta: %s", uid, object.String(old, "metadata", "uid")))
	}
	switch v := object.String(sent, "metadata", "resourceVersion"); {
	case v != "" && v != object.String(old, "metadata", "resourceVersion"):
		return nil, conflict(k, name, modified)
	case v == "" && !opts.unconditional && k.Custom:
		return nil, invalid(k, name, Cause{causeInvalid, "Invalid value: 0x0: must be specified for an update", "metadata.resourceVersion"})
	}
	o := object.Copy(sent)
	switch {
	case opts.sub == "status":
		o = keepAllButStatus(k, old, o)
	case opts.sub == "" && k.Status:
		carry(o, old, "status")
	}
	keepSystemFields(o, old)
	if meta := object.Map(o, "metadata"); meta["managedFields"] == nil {
		carry(meta, object.Map(old, "metadata"), "managedFields") // only an empty list resets it
	}
	applyDefaults(k, o)
	admit(k, o)
	tidyMeta(object.Map(o, "metadata"))
	if k.Generation && opts.sub != "binding" && changedSpec(old, o) {
		n, _ := object.Int(old, "metadata", "generation")
		object.Set(o, n+1, "metadata", "generation")
	}
	return o, checkObject(k, o, old)
}

// keepAllButStatus is a write of the status alone. Metadata of custom kinds stays;
// kubelets write labels and annotations with the status of built-in ones.
func keepAllButStatus(k *Kind, old, sent object.Object) object.Object {
	o := object.Copy(old)
	carry(o, sent, "status")
	meta := object.Map(o, "metadata")
	carry(meta, object.Map(sent, "metadata"), "managedFields")
	if !k.Custom {
		carry(meta, object.Map(sent, "metadata"), "labels")
		carry(meta, object.Map(sent, "metadata"), "annotations")
	}
	return o
}

// carry changes to: its field name is from's.
func carry(to, from object.Object, name string) {
	if v, ok := from[name]; ok {
		to[name] = object.Copy(v)
	} else {
		delete(to, name)
	}
}

// keepSystemFields changes o: no client writes these.
func keepSystemFields(o, old object.Object) {
	meta, was := object.Map(o, "metadata"), object.Map(old, "metadata")
	for _, name := range []string{"name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName"} {
		carry(meta, was, name)
	}
	delete(meta, "selfLink")
}

// tidyMeta changes meta: empty maps and lists are not stored, as a typed
// encoder would not.
func tidyMeta(meta object.Object) {
	for _, name := range []string{"labels", "annotations", "finalizers", "ownerReferences", "managedFields"} {
		switch v := meta[name].(type) {
		case nil:
			delete(meta, name)
		case object.Object:
			if len(v) == 0 {
				delete(meta, name)
			}
		case []any:
			if len(v) == 0 {
				delete(meta, name)
			}
		}
	}
	if meta["generateName"] == "" {
		delete(meta, "generateName")
	}
}

// changedSpec reports whether anything but metadata and status differs.
func changedSpec(a, b object.Object) bool {
	rest := func(o object.Object) object.Object {
		out := maps.Clone(o)
		delete(out, "metadata")
		delete(out, "status")
		return out
	}
	return !object.Equal(rest(a), rest(b))
}

// checkObject refuses what may not be stored; old is nil for a new object.
func checkObject(k *Kind, o, old object.Object) error {
	meta := object.Map(o, "metadata")
	name := object.String(meta, "name")
	causes := checkMeta(meta)
	if old == nil {
		causes = append(checkName(k, name), causes...)
	} else if object.String(old, "metadata", "deletionTimestamp") != "" {
		causes = append(causes, newFinalizers(meta, object.Map(old, "metadata"))...)
	}
	if k.Schema != nil {
		causes = append(causes, k.Schema.check(o, "")...)
	}
	causes = append(causes, checkBuiltin(k, o, old)...)
	if len(causes) > 0 {
		return invalid(k, name, causes...)
	}
	return nil
}

func checkName(k *Kind, name string) []Cause {
	if name == "" {
		return []Cause{{causeRequired, "Required value: name or generateName is required", "metadata.name"}}
	}
	var wrong []string
	switch {
	case k.Group == "rbac.authorization.k8s.io" || k.Plural == "clustertrustbundles": // these have colons
		if name == "." || name == ".." || strings.ContainsAny(name, "/%") {
			wrong = []string{"may not be '.', '..' nor contain '/' or '%'"}
		}
	case k.Group == "" && k.Plural == "namespaces":
		wrong = validation.IsDNS1123Label(name)
	case k.Group == "" && k.Plural == "services":
		wrong = validation.IsDNS1035Label(name)
	default:
		wrong = validation.IsDNS1123Subdomain(name)
	}
	var causes []Cause
	for _, w := range wrong {
		causes = append(causes, Cause{causeInvalid, fmt.Sprintf("Invalid value: %q: %s", name, w), "metadata.name"})
	}
	return causes
}

// maxAnnotationBytes bounds all annotations of an object together.
const maxAnnotationBytes = 256 << 10

func checkMeta(meta object.Object) (causes []Cause) {
	wrong := func(field string, v any, why string) {
		causes = append(causes, Cause{causeInvalid, fmt.Sprintf("Invalid value: %s: %s", object.AppendValue(nil, v), why), "metadata." + field})
	}
	for name, v := range object.Map(meta, "labels") {
		for _, why := range validation.IsQualifiedName(name) {
			wrong("labels", name, why)
		}
		s, ok := v.(string)
		if !ok {
			wrong("labels", v, "must be a string")
		}
		for _, why := range validation.IsValidLabelValue(s) {
			wrong("labels", s, why)
		}
	}
	size := 0
	for name, v := range object.Map(meta, "annotations") {
		for _, why := range validation.IsQualifiedName(strings.ToLower(name)) {
			wrong("annotations", name, why)
		}
		s, ok := v.(string)
		if !ok {
			wrong("annotations", v, "must be a string")
		}
		size += len(name) + len(s)
	}
	if size > maxAnnotationBytes {
		causes = append(causes, Cause{"FieldValueTooLong", fmt.Sprintf("Too long: may not be more than %d bytes", maxAnnotationBytes), "metadata.annotations"})
	}
	for _, f := range object.Strings(meta, "finalizers") {
		for _, why := range validation.IsQualifiedName(f) {
			wrong("finalizers", f, why)
		}
	}
	for i, v := range object.List(meta, "ownerReferences") {
		ref, _ := v.(object.Object)
		for _, field := range []string{"apiVersion", "kind", "name", "uid"} {
			if object.String(ref, field) == "" {
				causes = append(causes, Cause{causeInvalid, fmt.Sprintf("Invalid value: %q: must not be empty", ""), fmt.Sprintf("metadata.ownerReferences[%d].%s", i, field)})
			}
		}
	}
	return causes
}

// newFinalizers refuses finalizers that an object being deleted did not have.
func newFinalizers(meta, old object.Object) []Cause {
	had := object.Strings(old, "finalizers")
	var added []string
	for _, f := range object.Strings(meta, "finalizers") {
		if !slices.Contains(had, f) {
			added = append(added, f)
		}
	}
	if added == nil {
		return nil
	}
	return []Cause{{causeForbidden, fmt.Sprintf("Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers %#v", added), "metadata.finalizers"}}
}
