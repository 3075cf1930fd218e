package resource

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// checkPodSpec refuses pods that nobody could run, and templates of such. restart
// are the policies that there may be; absent is said of none.
func checkPodSpec(spec object.Object, at *field.Path, absent string, restart ...string) (errs field.ErrorList) {
	containers := object.List(spec, "containers")
	if len(containers) == 0 {
		errs = append(errs, field.Required(at.Child("containers"), ""))
	}
	volumes := names(object.List(spec, "volumes"))
	seen := map[string]bool{}
	for _, list := range []string{"containers", "initContainers"} {
		for i, v := range object.List(spec, list) {
			c, _ := v.(object.Object)
			below := at.Child(list).Index(i)
			if name := object.String(c, "name"); name != "" && seen[name] {
				errs = append(errs, field.Duplicate(below.Child("name"), name))
			} else {
				seen[name] = true
			}
			errs = append(errs, checkContainer(c, below, volumes)...)
		}
	}
	switch policy := object.String(spec, "restartPolicy"); {
	case absent != "" && (policy == "" || policy == "Always"): // what is not said has been filled in
		errs = append(errs, field.Required(at.Child("restartPolicy"), absent))
	case spec != nil:
		errs = append(errs, oneOf(at.Child("restartPolicy"), policy, restart...)...)
	}
	return errs
}

func names(list []any) (out []string) {
	for _, v := range list {
		o, _ := v.(object.Object)
		out = append(out, object.String(o, "name"))
	}
	return out
}

func checkContainer(c object.Object, at *field.Path, volumes []string) (errs field.ErrorList) {
	errs = required(c, at, "name")
	if name := object.String(c, "name"); name != "" {
		for _, why := range validation.IsDNS1123Label(name) {
			errs = append(errs, field.Invalid(at.Child("name"), name, why))
		}
	}
	errs = append(errs, required(c, at, "image")...)
	for i, v := range object.List(c, "ports") {
		p, _ := v.(object.Object)
		errs = append(errs, checkPort(p, at.Child("ports").Index(i), "containerPort")...)
	}
	for i, v := range object.List(c, "volumeMounts") {
		m, _ := v.(object.Object)
		if name := object.String(m, "name"); !slices.Contains(volumes, name) {
			errs = append(errs, field.NotFound(at.Child("volumeMounts").Index(i).Child("name"), name))
		}
	}
	if policy := object.String(c, "imagePullPolicy"); policy != "" {
		errs = append(errs, oneOf(at.Child("imagePullPolicy"), policy, "Always", "IfNotPresent", "Never")...)
	}
	limits := object.Map(c, "resources", "limits")
	for name, v := range object.Sorted(object.Map(c, "resources", "requests")) {
		request, ok := parseQuantity(v)
		limit, limited := parseQuantity(limits[name])
		if ok && limited && request.Cmp(limit) > 0 {
			errs = append(errs, field.Invalid(at.Child("resources", "requests"), object.Text(v), "must be less than or equal to "+name+" limit of "+object.Text(limits[name])))
		}
	}
	return errs
}
