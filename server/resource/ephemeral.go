package resource

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Ephemeral containers join a pod that runs (kubectl debug), by a subresource that
// writes nothing else. They stay as they came.
const (
	ephemeral     = "ephemeralcontainers"
	ephemeralList = "ephemeralContainers"
)

// noneEphemeral are fields of containers that are counted on.
var noneEphemeral = []string{"ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"}

// checkEphemeral refuses ephemeral containers that nobody could run, and changes of those
// that there are.
func checkEphemeral(o, old object.Object) (errs field.ErrorList) {
	at := atSpec.Child(ephemeralList)
	if object.String(old, "metadata", "annotations", "kubernetes.io/config.mirror") != "" {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	volumes := names(object.List(o, "spec", "volumes"))
	others := append(names(object.List(o, "spec", "containers")), names(object.List(o, "spec", "initContainers"))...)
	taken, is := slices.Clone(others), map[string]object.Object{}
	for i, v := range object.List(o, "spec", ephemeralList) {
		c, _ := v.(object.Object)
		below, name := at.Index(i), object.String(c, "name")
		errs = append(errs, checkContainer(c, below, volumes)...)
		if slices.Contains(taken, name) {
			errs = append(errs, field.Duplicate(below.Child("name"), name))
		}
		taken, is[name] = append(taken, name), c
		if target := object.String(c, "targetContainerName"); target != "" && !slices.Contains(others, target) {
			errs = append(errs, field.NotFound(below.Child("targetContainerName"), target))
		}
		for _, name := range noneEphemeral {
			if v := c[name]; v != nil && !object.Equal(v, object.Object{}) {
				errs = append(errs, field.Forbidden(below.Child(name), "cannot be set for an Ephemeral Container"))
			}
		}
	}
	for _, v := range object.List(old, "spec", ephemeralList) {
		was, _ := v.(object.Object)
		switch name := object.String(was, "name"); {
		case is[name] == nil:
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", name)))
		case !object.Equal(is[name], was):
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be changed\n", name)))
		}
	}
	return errs
}
