package resource

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// Pure functions from what is stored and what a client sent to what is to be
// stored. They return new objects.

// timestamp is a time as objects have it.
func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// identify checks that an object is what and where the request says, and fills in
// what the object leaves out.
func identify(k *Kind, o object.Object, namespace string) error {
	if err := conformMeta(k, o["metadata"]); err != nil {
		return badRequest("%s in version %q cannot be handled as a %s: %v", k.Name, k.Version, k.Name, err)
	}
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
	meta := object.Map(o, "metadata")
	if meta == nil {
		meta = object.Object{}
		o["metadata"] = meta
	}
	delete(meta, "selfLink")
	if !k.Namespaced {
		delete(meta, "namespace")
		return nil
	}
	if ns := object.String(meta, "namespace"); ns != "" && ns != namespace {
		return badRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	meta["namespace"] = namespace
	return nil
}

// conformMeta refuses metadata that is none, in a typed client's words.
func conformMeta(k *Kind, meta any) error {
	switch m := meta.(type) {
	case nil:
		return nil
	case object.Object:
		if k.Custom {
			return kinds.Conform(objectMeta(), m)
		}
		return nil // with the rest of the object
	}
	return fmt.Errorf("json: cannot unmarshal %s into Go struct field %s.metadata of type v1.ObjectMeta", jsonName(meta), k.Name)
}

func jsonName(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case bool:
		return "bool"
	case []any:
		return "array"
	}
	return "number"
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
		return nil, &Failure{Code: http.StatusInternalServerError, Message: "resourceVersion should not be set on objects to be created"}
	}
	for _, name := range []string{"deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"} {
		delete(meta, name)
	}
	meta["uid"], meta["creationTimestamp"] = uid, timestamp(now)
	if k.Generation {
		meta["generation"] = int64(1)
	}
	if k.Status && k.Plural != "nodes" {
		carry(o, k.blank(), "status") // is somebody else's; a kubelet makes its node with one
		keepNotes(o, nil, k.StatusNotes)
	}
	applyDefaults(k, o)
	tidyMeta(object.Map(o, "metadata"))
	if account != nil {
		if err := account(o); err != nil {
			return nil, err
		}
	}
	admit(k, o)
	return o, checkObject(k, o, nil, "")
}

// updateOptions say which part of an object a request may write.
type updateOptions struct {
	// sub is "", status, ephemeralcontainers, or another subresource, whose objects were made of the stored one.
	sub string
	// patched: the object was made of the stored one by a patch. No resource version in it
	// means that any will do.
	patched bool
}

// prepareUpdate makes of what is stored and what a client sent the object to be
// stored. It changes sent, which is nobody else's.
func prepareUpdate(k *Kind, old, sent object.Object, opts updateOptions) (object.Object, error) {
	name := object.String(old, "metadata", "name")
	uid, given := object.String(old, "metadata", "uid"), object.String(sent, "metadata", "uid")
	if given != "" && given != uid && !opts.patched {
		return nil, conflict(k, name, fmt.Sprintf("StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: %s, UID in object meta: %s",
			k.key(object.String(old, "metadata", "namespace"), name), given, uid))
	}
	switch v := object.String(sent, "metadata", "resourceVersion"); {
	case strings.Trim(v, "0123456789") != "":
		return nil, unreadable("", v)
	case v != "" && v != object.String(old, "metadata", "resourceVersion"):
		return nil, conflict(k, name, modified)
	case v == "" && !opts.patched && k.Custom:
		// The message names the resource where others name the kind.
		return nil, invalid(&Kind{Name: k.Plural, Group: k.Group}, name, Cause{causeInvalid, "Invalid value: 0: must be specified for an update", "metadata.resourceVersion"})
	}
	if causes := fixedMeta(object.Map(sent, "metadata"), object.Map(old, "metadata")); causes != nil {
		return nil, invalid(k, name, causes...)
	}
	o := sent
	switch {
	case opts.sub == "status":
		o = keepAllButStatus(k, old, o)
	case opts.sub == ephemeral:
		o = object.Copy(old)
		carry(object.Map(o, "spec"), object.Map(sent, "spec"), ephemeralList)
		carry(object.Map(o, "metadata"), object.Map(sent, "metadata"), "managedFields")
	case opts.sub == "" && k.Status:
		carry(o, old, "status")
		keepNotes(o, old, k.StatusNotes)
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
	return o, checkObject(k, o, old, opts.sub)
}

// keepAllButStatus is a write of the status alone. Metadata of custom kinds stays;
// kubelets write labels and annotations with the status of built-in ones.
func keepAllButStatus(k *Kind, old, sent object.Object) object.Object {
	o := object.Copy(old)
	carry(o, sent, "status")
	meta := object.Map(o, "metadata")
	carry(meta, object.Map(sent, "metadata"), "managedFields")
	if !k.Custom {
		if k.Plural != "deployments" {
			carry(meta, object.Map(sent, "metadata"), "labels")
		}
		carry(meta, object.Map(sent, "metadata"), "annotations")
		keepNotes(o, old, k.SpecNotes)
	}
	return o
}

// keepNotes changes o: it has these annotations as old has them.
func keepNotes(o, old object.Object, names []string) {
	for _, name := range names {
		if v := object.Get(old, "metadata", "annotations", name); v != nil {
			object.Set(o, v, "metadata", "annotations", name)
		} else {
			object.Remove(o, "metadata", "annotations", name)
		}
	}
}

// fixedMeta refuses what only the server writes, where it is given and another. A
// time of birth that is another is not worth a refusal.
func fixedMeta(meta, old object.Object) (causes []Cause) {
	for _, name := range []string{"uid", "deletionTimestamp", "deletionGracePeriodSeconds"} {
		if v := meta[name]; v != nil && v != "" && !object.Equal(v, old[name]) {
			causes = append(causes, causeOf(field.Invalid(field.NewPath("metadata", name), v, immutable)))
		}
	}
	return causes
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
