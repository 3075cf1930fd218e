package resource

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// What may not be stored, in a kube-apiserver's words: what all objects have here,
// what kinds have in check_builtin.go, and what may not change in check_change.go.

// checkObject refuses what may not be stored; old is nil for a new object, and sub what
// is written of one.
func checkObject(k *Kind, o, old object.Object, sub string) error {
	meta := object.Map(o, "metadata")
	name := object.String(meta, "name")
	causes := checkMeta(meta)
	if old == nil {
		causes = slices.Concat(checkName(k, meta), causes, plainFinalizers(k, meta))
	} else if object.String(old, "metadata", "deletionTimestamp") != "" {
		causes = append(causes, newFinalizers(meta, object.Map(old, "metadata"))...)
	}
	if k.Schema != nil {
		causes = append(causes, k.Schema.check(o, "")...)
	}
	causes = append(causes, checkBuiltin(k, o, old, sub)...)
	if len(causes) > 0 {
		return invalid(k, name, causes...)
	}
	return nil
}

// checkName refuses a new object's name, and what one was made of.
func checkName(k *Kind, meta object.Object) (causes []Cause) {
	name := object.String(meta, "name")
	if name == "" {
		return []Cause{{causeRequired, "Required value: name or generateName is required", "metadata.name"}}
	}
	rule := nameRule(k)
	if base := object.String(meta, "generateName"); base != "" {
		trimmed := base
		if strings.HasSuffix(base, "-") && len(base) > 1 {
			trimmed = base[:len(base)-2] + "a" // a name may go on after it
		}
		for _, why := range rule(trimmed) {
			causes = append(causes, causeOf(field.Invalid(field.NewPath("metadata", "generateName"), base, why)))
		}
	}
	for _, why := range rule(name) {
		causes = append(causes, causeOf(field.Invalid(field.NewPath("metadata", "name"), name, why)))
	}
	const longest = 52 // of a cron job: its jobs' names end with a time
	if k.qualified() == "cronjobs.batch" && len(name) > longest {
		causes = append(causes, causeOf(field.Invalid(field.NewPath("metadata", "name"), name, "must be no more than 52 characters")))
	}
	return causes
}

func nameRule(k *Kind) func(string) []string {
	switch {
	case k.Group == rbacGroup || k.Plural == "clustertrustbundles": // these have colons
		return content.IsPathSegmentName
	case k.Group == "" && (k.Plural == "namespaces" || k.Plural == "services"):
		return content.IsDNS1123Label
	}
	return content.IsDNS1123Subdomain
}

// maxAnnotationBytes bounds all annotations of an object together.
const maxAnnotationBytes = 256 << 10

func checkMeta(meta object.Object) (causes []Cause) {
	wrong := func(name string, v any, why string) {
		causes = append(causes, causeOf(field.Invalid(field.NewPath("metadata", name), v, why)))
	}
	for name, v := range object.Sorted(object.Map(meta, "labels")) {
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
	for name, v := range object.Sorted(object.Map(meta, "annotations")) {
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
		causes = append(causes, causeOf(field.TooLong(field.NewPath("metadata", "annotations"), "", maxAnnotationBytes)))
	}
	finalizers := object.Strings(meta, "finalizers")
	for _, f := range finalizers {
		for _, why := range validation.IsQualifiedName(f) {
			wrong("finalizers", f, why)
		}
	}
	causes = append(causes, checkOwners(object.List(meta, "ownerReferences"))...)
	if slices.Contains(finalizers, finalizerOrphan) && slices.Contains(finalizers, finalizerForeground) {
		wrong("finalizers", finalizers, fmt.Sprintf("finalizer %s and %s cannot be both set", finalizerForeground, finalizerOrphan))
	}
	return causes
}

// checkOwners refuses references to what cannot own, and more than one controller.
func checkOwners(owners []any) (causes []Cause) {
	at := field.NewPath("metadata", "ownerReferences")
	controller := ""
	for _, v := range owners {
		ref, _ := v.(object.Object)
		text := func(name string) string { return object.String(ref, name) }
		if version := text("apiVersion"); version == "" || strings.Count(version, "/") > 1 {
			causes = append(causes, causeOf(field.Invalid(at.Child("apiVersion"), version, "version must not be empty")))
		}
		for _, name := range []string{"kind", "name", "uid"} {
			if text(name) == "" {
				causes = append(causes, causeOf(field.Invalid(at.Child(name), "", "must not be empty")))
			}
		}
		if text("apiVersion") == "v1" && text("kind") == "Event" {
			causes = append(causes, causeOf(field.Invalid(at, ref, "/v1, Kind=Event is disallowed from being an owner")))
		}
		if ref["controller"] != true {
			continue
		}
		this := text("kind") + "/" + text("name")
		if controller != "" {
			causes = append(causes, causeOf(field.Invalid(at, owners,
				fmt.Sprintf("Only one reference can have Controller set to true. Found \"true\" in references for %s and %s", controller, this))))
			continue
		}
		controller = this
	}
	return causes
}

// plainFinalizers refuses names without a domain, which are Kubernetes' own.
func plainFinalizers(k *Kind, meta object.Object) (causes []Cause) {
	for i, f := range object.Strings(meta, "finalizers") {
		if !k.Custom && k.Group != definitionGroup && !strings.Contains(f, "/") && !slices.Contains([]string{"kubernetes", finalizerOrphan, finalizerForeground}, f) {
			causes = append(causes, causeOf(field.Invalid(field.NewPath("metadata", "finalizers").Index(i), f, "name is neither a standard finalizer name nor is it fully qualified")))
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
	return []Cause{causeOf(field.Forbidden(field.NewPath("metadata", "finalizers"), fmt.Sprintf("no new finalizers can be added if the object is being deleted, found new finalizers %#v", added)))}
}
