package resource

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// checkBuiltin refuses built-in objects that could do nothing, or that controllers
// would stumble over: what is required is there, and what is chosen is one of the
// choices. A kube-apiserver checks much more. What is stored is not judged again by
// those who change something else of it.
func checkBuiltin(k *Kind, o, old object.Object, sub string) (causes []Cause) {
	if k.Group == definitionGroup {
		return checkDefinition(o, old)
	}
	if k.Custom {
		return nil
	}
	var errs field.ErrorList
	if check := builtinChecks[k.qualified()]; check != nil && (old == nil || changedSpec(old, o)) {
		errs = check(o)
	}
	switch {
	case old == nil && k.qualified() == "pods" && len(object.List(o, "spec", ephemeralList)) > 0:
		errs = append(errs, field.Forbidden(atSpec.Child(ephemeralList), "cannot be set on create"))
	case old != nil && sub == "":
		errs = append(errs, checkChange(k, o, old)...)
	case old != nil && sub == ephemeral:
		errs = append(errs, checkEphemeral(o, old)...)
	}
	for _, e := range errs {
		causes = append(causes, causeOf(e))
	}
	return causes
}

var (
	atSpec     = field.NewPath("spec")
	atTemplate = atSpec.Child("template")
)

var builtinChecks = map[string]func(object.Object) field.ErrorList{
	"pods": func(o object.Object) field.ErrorList {
		return checkPodSpec(object.Map(o, "spec"), atSpec, "", "Always", "OnFailure", "Never")
	},
	"podtemplates": func(o object.Object) field.ErrorList {
		return checkPodSpec(object.Map(o, "template", "spec"), field.NewPath("template", "spec"), "", "Always", "OnFailure", "Never")
	},
	"deployments.apps":       func(o object.Object) field.ErrorList { return checkWorkload(o, "deployment") },
	"replicasets.apps":       func(o object.Object) field.ErrorList { return checkWorkload(o, "replicaset") },
	"statefulsets.apps":      func(o object.Object) field.ErrorList { return checkWorkload(o, "statefulset") },
	"daemonsets.apps":        func(o object.Object) field.ErrorList { return checkWorkload(o, "") },
	"replicationcontrollers": checkReplicationController,
	"jobs.batch":             func(o object.Object) field.ErrorList { return checkJobTemplate(object.Map(o, "spec"), atSpec) },
	"cronjobs.batch":         checkCronJob,
	"configmaps":             checkConfigMap,
	"secrets":                checkSecret,
	"services":               checkService,
	"ingresses.networking.k8s.io": func(o object.Object) (errs field.ErrorList) {
		if object.Get(o, "spec", "defaultBackend") == nil && len(object.List(o, "spec", "rules")) == 0 {
			errs = append(errs, field.Invalid(atSpec, nil, "either `defaultBackend` or `rules` must be specified"))
		}
		return errs
	},
	"networkpolicies.networking.k8s.io": func(o object.Object) (errs field.ErrorList) {
		for i, s := range object.Strings(o, "spec", "policyTypes") {
			errs = append(errs, oneOf(atSpec.Child("policyTypes").Index(i), s, "Ingress", "Egress")...)
		}
		return errs
	},
	"persistentvolumeclaims":                        checkClaim,
	"persistentvolumes":                             checkVolume,
	"storageclasses.storage.k8s.io":                 func(o object.Object) field.ErrorList { return required(o, nil, "provisioner") },
	"rolebindings.rbac.authorization.k8s.io":        func(o object.Object) field.ErrorList { return checkRoleRef(o, "Role", "ClusterRole") },
	"clusterrolebindings.rbac.authorization.k8s.io": func(o object.Object) field.ErrorList { return checkRoleRef(o, "ClusterRole") },
	"roles.rbac.authorization.k8s.io":               checkRules,
	"clusterroles.rbac.authorization.k8s.io":        checkRules,
	"endpointslices.discovery.k8s.io":               func(o object.Object) field.ErrorList { return required(o, nil, "addressType") },
	"leases.coordination.k8s.io":                    checkLease,
	"priorityclasses.scheduling.k8s.io":             checkPriorityClass,
	"endpoints":                                     checkEndpoints,
	"events":                                        checkEvent,
	"limitranges":                                   checkLimitRange,
	"horizontalpodautoscalers.autoscaling":          checkAutoscaler,
	"certificatesigningrequests.certificates.k8s.io": func(o object.Object) field.ErrorList {
		return required(object.Map(o, "spec"), atSpec, "signerName", "usages")
	},
}

// required refuses the absence of fields.
func required(o object.Object, at *field.Path, names ...string) (errs field.ErrorList) {
	for _, name := range names {
		if v := o[name]; v == nil || v == "" {
			below := field.NewPath(name)
			if at != nil {
				below = at.Child(name)
			}
			errs = append(errs, field.Required(below, ""))
		}
	}
	return errs
}

// oneOf refuses what is not one of the choices.
func oneOf(at *field.Path, s string, choices ...string) field.ErrorList {
	if slices.Contains(choices, s) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, s, choices)}
}

// checkReplicas: controllers do not expect fewer than none.
func checkReplicas(o object.Object) field.ErrorList {
	if n, ok := object.Int(o, "spec", "replicas"); ok && n < 0 {
		return field.ErrorList{field.Invalid(atSpec.Child("replicas"), n, "must be greater than or equal to 0")}
	}
	return nil
}

// checkWorkload: a controller's pods are those that it selects. whole is what selects
// nothing of it, for kinds that say so.
func checkWorkload(o object.Object, whole string) (errs field.ErrorList) {
	selector := object.Map(o, "spec", "selector")
	errs = checkReplicas(o)
	switch {
	case selector == nil && whole != "":
		errs = append(errs, field.Required(atSpec.Child("selector"), ""))
	case whole != "" && len(object.Map(selector, "matchLabels"))+len(object.List(selector, "matchExpressions")) == 0:
		errs = append(errs, field.Invalid(atSpec.Child("selector"), selector, "empty selector is invalid for "+whole))
	}
	set := object.Map(o, "spec", "template", "metadata", "labels")
	if sel, err := labelSelector(selector); err != nil || !sel.Matches(labelSet(set)) {
		errs = append(errs, mismatch(set))
	}
	return append(errs, checkPodSpec(object.Map(o, "spec", "template", "spec"), atTemplate.Child("spec"), "", "Always")...)
}

func mismatch(set object.Object) *field.Error {
	return field.Invalid(atTemplate.Child("metadata", "labels"), set, "`selector` does not match template `labels`")
}

func labelSet(o object.Object) labels.Set {
	set := make(labels.Set, len(o))
	for name, v := range o {
		set[name], _ = v.(string)
	}
	return set
}

func checkReplicationController(o object.Object) field.ErrorList {
	errs := append(checkReplicas(o), required(object.Map(o, "spec"), atSpec, "selector", "template")...)
	if len(errs) > 0 {
		return errs
	}
	set := object.Map(o, "spec", "template", "metadata", "labels")
	if !labels.SelectorFromSet(labelSet(object.Map(o, "spec", "selector"))).Matches(labelSet(set)) {
		errs = append(errs, mismatch(set))
	}
	return append(errs, checkPodSpec(object.Map(o, "spec", "template", "spec"), atTemplate.Child("spec"), "", "Always")...)
}

func checkJobTemplate(spec object.Object, at *field.Path) field.ErrorList {
	return checkPodSpec(object.Map(spec, "template", "spec"), at.Child("template", "spec"), `valid values: "OnFailure", "Never"`, "OnFailure", "Never")
}

func checkCronJob(o object.Object) (errs field.ErrorList) {
	schedule := object.String(o, "spec", "schedule")
	switch parts := strings.Fields(schedule); {
	case schedule == "":
		errs = append(errs, field.Required(atSpec.Child("schedule"), ""))
	case strings.HasPrefix(schedule, "@") || strings.Contains(schedule, "TZ="):
	case len(parts) != 5:
		errs = append(errs, field.Invalid(atSpec.Child("schedule"), schedule, "expected exactly 5 fields, found "+object.Text(int64(len(parts)))+": ["+strings.Join(parts, " ")+"]"))
	}
	return append(errs, checkJobTemplate(object.Map(o, "spec", "jobTemplate", "spec"), atSpec.Child("jobTemplate", "spec"))...)
}

// maxDataBytes bounds what a ConfigMap or a Secret holds.
const maxDataBytes = 1 << 20

func checkConfigMap(o object.Object) (errs field.ErrorList) {
	texts, bytes := object.Map(o, "data"), object.Map(o, "binaryData")
	size := 0
	for name, v := range object.Sorted(texts) {
		errs = append(errs, checkDataKey("data", name)...)
		if _, twice := bytes[name]; twice {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(name), name, "duplicate of key present in binaryData"))
		}
		size += len(object.Text(v))
	}
	for name, v := range object.Sorted(bytes) {
		errs = append(errs, checkDataKey("binaryData", name)...)
		size += decodedSize(v)
	}
	if size > maxDataBytes {
		errs = append(errs, field.TooLong(field.NewPath(""), "", maxDataBytes))
	}
	return errs
}

// secretNeeds are the keys without which a secret of a type is none.
var secretNeeds = map[string][]string{
	"kubernetes.io/dockercfg": {".dockercfg"}, "kubernetes.io/dockerconfigjson": {".dockerconfigjson"},
	"kubernetes.io/ssh-auth": {"ssh-privatekey"}, "kubernetes.io/tls": {"tls.crt", "tls.key"},
}

func checkSecret(o object.Object) (errs field.ErrorList) {
	data, at := object.Map(o, "data"), field.NewPath("data")
	size := 0
	for name, v := range object.Sorted(data) {
		errs = append(errs, checkDataKey("data", name)...)
		size += decodedSize(v)
	}
	if size > maxDataBytes {
		errs = append(errs, field.TooLong(at, "", maxDataBytes))
	}
	for _, name := range secretNeeds[object.String(o, "type")] {
		if data[name] == nil {
			errs = append(errs, field.Required(at.Key(name), ""))
		}
	}
	return errs
}

func decodedSize(v any) int {
	s, _ := v.(string)
	return base64.StdEncoding.DecodedLen(len(s)) - strings.Count(s[max(len(s)-2, 0):], "=")
}

func checkDataKey(in, name string) (errs field.ErrorList) {
	for _, why := range validation.IsConfigMapKey(name) {
		errs = append(errs, field.Invalid(field.NewPath(in).Key(name), name, why))
	}
	return errs
}

func checkService(o object.Object) field.ErrorList {
	kind, ports := object.String(o, "spec", "type"), object.List(o, "spec", "ports")
	var errs field.ErrorList
	if len(ports) == 0 && kind != "ExternalName" && clusterIP(o) != headless {
		errs = append(errs, field.Required(atSpec.Child("ports"), ""))
	}
	errs = append(errs, oneOf(atSpec.Child("type"), kind, "ClusterIP", "ExternalName", "LoadBalancer", "NodePort")...)
	for i, v := range ports {
		p, _ := v.(object.Object)
		at := atSpec.Child("ports").Index(i)
		errs = append(errs, checkPort(p, at, "port")...)
		if _, isName := p["targetPort"].(string); !isName {
			errs = append(errs, checkPort(p, at, "targetPort")...)
		}
	}
	return errs
}

func checkPort(p object.Object, at *field.Path, name string) (errs field.ErrorList) {
	n, _ := object.Int(p, name)
	for _, why := range validation.IsValidPortNum(int(n)) {
		errs = append(errs, field.Invalid(at.Child(name), n, why))
	}
	return errs
}

func checkClaim(o object.Object) (errs field.ErrorList) {
	if len(object.List(o, "spec", "accessModes")) == 0 {
		errs = append(errs, field.Required(atSpec.Child("accessModes"), "at least 1 access mode is required"))
	}
	if object.Get(o, "spec", "resources", "requests", "storage") == nil {
		errs = append(errs, field.Required(atSpec.Child("resources").Key("storage"), ""))
	}
	return errs
}

// besideSource are fields of a volume's spec that say nothing about where it is.
var besideSource = set("accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy",
	"storageClassName", "volumeAttributesClassName", "volumeMode")

func checkVolume(o object.Object) (errs field.ErrorList) {
	spec := object.Map(o, "spec")
	errs = required(spec, atSpec, "accessModes", "capacity")
	if capacity := object.Map(spec, "capacity"); capacity["storage"] == nil {
		errs = append(errs, field.NotSupported(atSpec.Child("capacity"), spec["capacity"], []string{"storage"}))
	}
	for name := range spec {
		if !besideSource[name] {
			return errs
		}
	}
	return append(errs, field.Required(atSpec, "must specify a volume type"))
}

func checkRoleRef(o object.Object, kinds ...string) field.ErrorList {
	ref, at := object.Map(o, "roleRef"), field.NewPath("roleRef")
	return append(oneOf(at.Child("kind"), object.String(ref, "kind"), kinds...), required(ref, at, "name")...)
}

func checkRules(o object.Object) (errs field.ErrorList) {
	for i, v := range object.List(o, "rules") {
		if r, _ := v.(object.Object); len(object.List(r, "verbs")) == 0 {
			errs = append(errs, field.Required(field.NewPath("rules").Index(i).Child("verbs"), "verbs must contain at least one value"))
		}
	}
	return errs
}

func checkLease(o object.Object) (errs field.ErrorList) {
	if n, ok := object.Int(o, "spec", "leaseDurationSeconds"); ok && n <= 0 {
		errs = append(errs, field.Invalid(atSpec.Child("leaseDurationSeconds"), n, "must be greater than 0"))
	}
	if n, ok := object.Int(o, "spec", "leaseTransitions"); ok && n < 0 {
		errs = append(errs, field.Invalid(atSpec.Child("leaseTransitions"), n, "must be greater than or equal to 0"))
	}
	return errs
}

func checkPriorityClass(o object.Object) (errs field.ErrorList) {
	if n, _ := object.Int(o, "value"); n > 1e9 && !strings.HasPrefix(object.String(o, "metadata", "name"), "system-") {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "maximum allowed value of a user defined priority is 1000000000"))
	}
	return errs
}

func checkEndpoints(o object.Object) (errs field.ErrorList) {
	for i, s := range object.List(o, "subsets") {
		subset, _ := s.(object.Object)
		for _, list := range []string{"addresses", "notReadyAddresses"} {
			for j, v := range object.List(subset, list) {
				a, _ := v.(object.Object)
				if _, err := netip.ParseAddr(object.String(a, "ip")); err != nil {
					errs = append(errs, field.Invalid(field.NewPath("subsets").Index(i).Child(list).Index(j).Child("ip"), a["ip"], "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
				}
			}
		}
	}
	return errs
}

func checkEvent(o object.Object) (errs field.ErrorList) {
	of, in := object.String(o, "involvedObject", "namespace"), object.String(o, "metadata", "namespace")
	if of != in && (of != "" || in != "default") {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), of, "does not match event.namespace"))
	}
	return errs
}

func checkLimitRange(o object.Object) (errs field.ErrorList) {
	for i, v := range object.List(o, "spec", "limits") {
		l, _ := v.(object.Object)
		if kind := object.String(l, "type"); !strings.Contains(kind, "/") && !slices.Contains([]string{"Pod", "Container", "PersistentVolumeClaim"}, kind) {
			errs = append(errs, field.Invalid(atSpec.Child("limits").Index(i).Child("type"), kind, "must be a standard limit type or fully qualified"))
		}
	}
	return errs
}

func checkAutoscaler(o object.Object) (errs field.ErrorList) {
	most, _ := object.Int(o, "spec", "maxReplicas")
	if least, ok := object.Int(o, "spec", "minReplicas"); most < 1 {
		errs = append(errs, field.Required(atSpec.Child("maxReplicas"), "must be set and greater than 0"))
		if ok && most < least {
			errs = append(errs, field.Invalid(atSpec.Child("maxReplicas"), most, "must be greater than or equal to `minReplicas`"))
		}
	} else if ok && most < least {
		errs = append(errs, field.Invalid(atSpec.Child("maxReplicas"), most, "must be greater than or equal to `minReplicas`"))
	}
	return append(errs, required(object.Map(o, "spec", "scaleTargetRef"), atSpec.Child("scaleTargetRef"), "kind", "name")...)
}
