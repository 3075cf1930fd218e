package resource

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// immutable is said of a field that keeps what it was made with.
const immutable = "field is immutable"

// fixedFields keep what they were made with: what runs was made after them.
var fixedFields = map[string][][]string{
	"deployments.apps":                  {{"spec", "selector"}},
	"replicasets.apps":                  {{"spec", "selector"}},
	"daemonsets.apps":                   {{"spec", "selector"}},
	"jobs.batch":                        {{"spec", "completions"}, {"spec", "selector"}, {"spec", "completionMode"}},
	"secrets":                           {{"type"}},
	"storageclasses.storage.k8s.io":     {{"provisioner"}, {"reclaimPolicy"}, {"volumeBindingMode"}},
	"endpointslices.discovery.k8s.io":   {{"addressType"}},
	"priorityclasses.scheduling.k8s.io": {{"preemptionPolicy"}},
}

// checkChange refuses what may not become of a built-in object.
func checkChange(k *Kind, o, old object.Object) (errs field.ErrorList) {
	name := k.qualified()
	for _, path := range fixedFields[name] {
		if v := object.Get(o, path...); !object.Equal(v, object.Get(old, path...)) && !indexed(name, path, old) {
			errs = append(errs, field.Invalid(field.NewPath(path[0], path[1:]...), v, immutable))
		}
	}
	switch name {
	case "configmaps", "secrets":
		errs = append(errs, checkFrozen(o, old)...)
	case "pods":
		errs = append(errs, checkPodChange(o, old)...)
	case "statefulsets.apps":
		if specDiffers(o, old, "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy", "minReadySeconds") {
			errs = append(errs, field.Forbidden(atSpec, "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "+
				"'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"))
		}
	case "persistentvolumeclaims":
		errs = append(errs, checkClaimChange(o, old)...)
	case "jobs.batch":
		if suspended, _ := object.Get(old, "spec", "suspend").(bool); !suspended && !object.Equal(object.Get(o, "spec", "template"), object.Get(old, "spec", "template")) {
			errs = append(errs, field.Invalid(atTemplate, object.Get(o, "spec", "template"), immutable))
		}
	case "rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io":
		if !object.Equal(o["roleRef"], old["roleRef"]) {
			errs = append(errs, field.Invalid(field.NewPath("roleRef"), roleReference(o), "cannot change roleRef"))
		}
	case "priorityclasses.scheduling.k8s.io":
		if !object.Equal(o["value"], old["value"]) {
			errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
		}
	}
	return errs
}

// indexed reports whether a field is the number of completions of a job that counts
// them by index, which may change with its parallelism.
func indexed(name string, path []string, old object.Object) bool {
	return name == "jobs.batch" && path[1] == "completions" && object.String(old, "spec", "completionMode") == "Indexed"
}

// roleReference is a roleRef in the names that a kube-apiserver's message has.
func roleReference(o object.Object) any {
	ref := object.Map(o, "roleRef")
	return struct{ APIGroup, Kind, Name string }{object.String(ref, "apiGroup"), object.String(ref, "kind"), object.String(ref, "name")}
}

// checkFrozen: what says of itself that it never changes does not.
func checkFrozen(o, old object.Object) (errs field.ErrorList) {
	const why = "field is immutable when `immutable` is set"
	if old["immutable"] != true {
		return nil
	}
	for _, name := range []string{"immutable", "data", "binaryData"} {
		if !object.Equal(o[name], old[name]) {
			errs = append(errs, field.Forbidden(field.NewPath(name), why))
		}
	}
	return errs
}

// specDiffers reports whether specs differ in anything but some fields.
func specDiffers(o, old object.Object, but ...string) bool {
	rest := func(o object.Object) object.Object {
		out := object.Object{}
		for name, v := range object.Map(o, "spec") {
			if !slices.Contains(but, name) {
				out[name] = v
			}
		}
		return out
	}
	return !object.Equal(rest(o), rest(old))
}

const podChanges = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// checkPodChange: a pod is where it is and what it is. Bindings and scheduling gates
// come to it otherwise.
func checkPodChange(o, old object.Object) (errs field.ErrorList) {
	if object.Equal(o["spec"], old["spec"]) {
		return nil
	}
	tolerations := object.List(o, "spec", "tolerations")
	for _, had := range object.List(old, "spec", "tolerations") {
		if !slices.ContainsFunc(tolerations, func(v any) bool { return sameToleration(v, had) }) {
			errs = append(errs, field.Forbidden(atSpec.Child("tolerations"), "existing toleration can not be modified except its tolerationSeconds"))
			break
		}
	}
	o, old = object.Copy(o), object.Copy(old)
	for _, pod := range []object.Object{o, old} {
		for _, list := range []string{"containers", "initContainers"} {
			for _, v := range object.List(pod, "spec", list) {
				if c, ok := v.(object.Object); ok {
					delete(c, "image")
				}
			}
		}
	}
	but := []string{"activeDeadlineSeconds", "tolerations"}
	if gates := object.List(old, "spec", "schedulingGates"); len(object.List(o, "spec", "schedulingGates")) < len(gates) {
		but = append(but, "schedulingGates", "nodeSelector", "affinity")
	}
	if specDiffers(o, old, but...) {
		errs = append(errs, field.Forbidden(atSpec, podChanges))
	}
	return errs
}

func sameToleration(a, b any) bool {
	without := func(v any) object.Object {
		t, _ := v.(object.Object)
		t = object.Copy(t)
		delete(t, "tolerationSeconds")
		return t
	}
	return object.Equal(without(a), without(b))
}

// checkClaimChange: a claim that is bound may grow, and one that is not be bound.
func checkClaimChange(o, old object.Object) field.ErrorList {
	but := []string{"volumeAttributesClassName"}
	for _, name := range []string{"volumeName", "storageClassName"} {
		if object.String(old, "spec", name) == "" {
			but = append(but, name)
		}
	}
	if object.String(old, "status", "phase") == "Bound" {
		but = append(but, "resources")
	}
	if specDiffers(o, old, but...) {
		return field.ErrorList{field.Forbidden(atSpec, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims")}
	}
	return nil
}
