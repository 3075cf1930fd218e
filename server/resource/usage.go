package resource

import (
	"math/big"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/server/resource/object"
)

// What an object takes of a quota, as pure functions.

// amounts are quantities by resource name.
type amounts map[string]*big.Rat

func (a amounts) add(name string, n *big.Rat) {
	if have := a[name]; have != nil {
		n = new(big.Rat).Add(have, n)
	}
	a[name] = n
}

var one = big.NewRat(1, 1)

// countedByName are the core kinds that quotas also count by their plain name.
var countedByName = set("pods", "services", "secrets", "configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas")

// usageOf is what an object takes.
func usageOf(k *Kind, o object.Object) amounts {
	a := amounts{"count/" + k.qualified(): one}
	if k.Group != "" || !countedByName[k.Plural] {
		return a
	}
	switch k.Plural {
	case "pods":
		if phase := object.String(o, "status", "phase"); phase == "Succeeded" || phase == "Failed" {
			return a
		}
		a["pods"] = one
		podUsage(a, object.Map(o, "spec"))
		return a
	case "services":
		serviceUsage(a, o)
	case "persistentvolumeclaims":
		if n, ok := parseQuantity(object.Get(o, "spec", "resources", "requests", "storage")); ok {
			a["requests.storage"] = n
			if class := object.String(o, "spec", "storageClassName"); class != "" {
				a[class+".storageclass.storage.k8s.io/requests.storage"] = n
				a[class+".storageclass.storage.k8s.io/persistentvolumeclaims"] = one
			}
		}
	}
	a[k.Plural] = one
	return a
}

func serviceUsage(a amounts, o object.Object) {
	kind := object.String(o, "spec", "type")
	ports := big.NewRat(int64(len(object.List(o, "spec", "ports"))), 1)
	if kind == "LoadBalancer" {
		a["services.loadbalancers"] = one
	}
	if kind == "LoadBalancer" || kind == "NodePort" {
		a["services.nodeports"] = ports
	}
}

// podUsage adds the compute resources of a pod.
func podUsage(a amounts, spec object.Object) {
	for _, kind := range []string{"requests", "limits"} {
		for name, n := range podResources(spec, kind) {
			a[kind+"."+name] = n
			if kind == "requests" {
				a[name] = n // cpu is requests.cpu
			}
		}
	}
}

// podResources are a pod's requests or limits: the sum of its containers, or the
// greatest of its init containers if that is more.
func podResources(spec object.Object, kind string) amounts {
	sum := amounts{}
	for _, v := range object.List(spec, "containers") {
		c, _ := v.(object.Object)
		for name, n := range quantities(c, kind) {
			sum.add(name, n)
		}
	}
	for _, v := range object.List(spec, "initContainers") {
		c, _ := v.(object.Object)
		for name, n := range quantities(c, kind) {
			if sum[name] == nil || sum[name].Cmp(n) < 0 {
				sum[name] = n
			}
		}
	}
	return sum
}

// compute are the resources that a pod must say when a quota limits them.
var compute = []string{"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}

// inScopes reports whether a quota's scopes take an object in.
func inScopes(k *Kind, quota, o object.Object) bool {
	scopes := object.Strings(quota, "spec", "scopes")
	for _, v := range object.List(quota, "spec", "scopeSelector", "matchExpressions") {
		e, _ := v.(object.Object)
		scopes = append(scopes, object.String(e, "scopeName"))
	}
	if len(scopes) == 0 {
		return true
	}
	if k.Group != "" || k.Plural != "pods" {
		return false
	}
	spec := object.Map(o, "spec")
	a := amounts{}
	podUsage(a, spec)
	ends := spec["activeDeadlineSeconds"] != nil
	return !slices.ContainsFunc(scopes, func(s string) bool {
		switch s {
		case "BestEffort":
			return len(a) > 0
		case "NotBestEffort":
			return len(a) == 0
		case "Terminating":
			return !ends
		case "NotTerminating":
			return ends
		}
		return true // a scope that is not known takes nothing in
	})
}

// without names the containers of a pod (nil: it is none) that do not say how much of a
// resource they take.
func without(pod object.Object, resource string) (out []string) {
	in, name := "requests", strings.TrimPrefix(resource, "requests.")
	if limit, ok := strings.CutPrefix(resource, "limits."); ok {
		in, name = "limits", limit
	}
	for _, list := range []string{"containers", "initContainers"} {
		for _, v := range object.List(pod, "spec", list) {
			if c, _ := v.(object.Object); object.Get(c, "resources", in, name) == nil && object.Get(c, "resources", "limits", name) == nil {
				out = append(out, object.String(c, "name"))
			}
		}
	}
	return out
}

// quotaRefusal says why an object does not fit; empty: it does. next is what would
// be used then.
func quotaRefusal(quota object.Object, wants amounts, pod object.Object) (next object.Object, why string) {
	name := object.String(quota, "metadata", "name")
	hard, used := object.Map(quota, "spec", "hard"), object.Map(quota, "status", "used")
	next = object.Copy(used)
	if next == nil {
		next = object.Object{}
	}
	var unknown, missing, requested, have, limited []string
	for resource, v := range object.Sorted(hard) {
		n := wants[resource]
		if lacking := without(pod, resource); lacking != nil && slices.Contains(compute, resource) {
			missing = append(missing, resource+" for: "+strings.Join(lacking, ","))
		}
		if n == nil {
			continue
		}
		limit, ok := parseQuantity(v)
		now, known := parseQuantity(used[resource])
		if !ok || !known {
			unknown = append(unknown, resource)
			continue
		}
		sum := new(big.Rat).Add(now, n)
		if sum.Cmp(limit) > 0 {
			like := object.Text(v)
			requested = append(requested, resource+"="+formatQuantity(n, like))
			have = append(have, resource+"="+formatQuantity(now, like))
			limited = append(limited, resource+"="+like)
		}
		next[resource] = formatQuantity(sum, object.Text(v))
	}
	switch {
	case missing != nil:
		return nil, "failed quota: " + name + ": must specify " + strings.Join(missing, "; ")
	case unknown != nil:
		return nil, "status unknown for quota: " + name + ", resources: " + strings.Join(unknown, ",")
	case requested != nil:
		return nil, "exceeded quota: " + name + ", requested: " + strings.Join(requested, ",") + ", used: " + strings.Join(have, ",") + ", limited: " + strings.Join(limited, ",")
	}
	return next, ""
}

// given is what is used once an object is gone.
func given(quota object.Object, gone amounts) object.Object {
	next := object.Copy(object.Map(quota, "status", "used"))
	for resource, v := range next {
		now, ok := parseQuantity(v)
		if n := gone[resource]; ok && n != nil {
			rest := new(big.Rat).Sub(now, n)
			if rest.Sign() < 0 {
				rest = new(big.Rat)
			}
			next[resource] = formatQuantity(rest, object.Text(object.Get(quota, "spec", "hard", resource)))
		}
	}
	return next
}
