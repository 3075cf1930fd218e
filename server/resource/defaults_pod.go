package resource

import (
	"slices"

	"github.com/keelson-io/keelson/server/resource/object"
)

// defaultPodSpec changes the spec of a pod or a template.
func defaultPodSpec(spec object.Object) {
	if spec == nil {
		return
	}
	object.Default(spec, "Always", "restartPolicy")
	object.Default(spec, "ClusterFirst", "dnsPolicy")
	object.Default(spec, "default-scheduler", "schedulerName")
	object.Default(spec, int64(30), "terminationGracePeriodSeconds")
	object.Default(spec, object.Object{}, "securityContext")
	if account := spec["serviceAccountName"]; account != nil && account != "" {
		object.Default(spec, account, "serviceAccount") // its name of old
	}
	onHost, _ := spec["hostNetwork"].(bool)
	for _, list := range []string{"containers", "initContainers"} {
		eachOf(spec, list, func(c object.Object) {
			defaultContainer(c)
			if onHost {
				eachOf(c, "ports", func(p object.Object) {
					if n, _ := object.Int(p, "hostPort"); n == 0 && p["containerPort"] != nil {
						p["hostPort"] = p["containerPort"]
					}
				})
			}
		})
	}
	eachOf(spec, ephemeralList, defaultContainer)
	eachOf(spec, "volumes", defaultVolume)
}

// defaultPod changes a pod itself, not a template of one.
func defaultPod(o object.Object) {
	defaultPodSpec(object.Map(o, "spec"))
	defaultRequests(object.Map(o, "spec"))
	object.Default(o, true, "spec", "enableServiceLinks")
	if ip := object.String(o, "status", "podIP"); ip != "" {
		object.Default(o, []any{object.Object{"ip": ip}}, "status", "podIPs") // the older field is its first
	}
}

// defaultVolume changes a pod's volume: who may read its files.
func defaultVolume(v object.Object) {
	const mode = int64(0o644)
	for _, source := range []string{"configMap", "secret", "downwardAPI", "projected"} {
		if o := object.Map(v, source); o != nil {
			object.Default(o, mode, "defaultMode")
			eachOf(o, "items", defaultFieldRef)
		}
	}
	if o := object.Map(v, "hostPath"); o != nil {
		object.Default(o, "", "type")
	}
	eachOf(object.Map(v, "projected"), "sources", func(s object.Object) {
		if o := object.Map(s, "serviceAccountToken"); o != nil {
			object.Default(o, int64(3600), "expirationSeconds")
		}
		eachOf(object.Map(s, "downwardAPI"), "items", defaultFieldRef)
	})
}

func defaultFieldRef(from object.Object) {
	if ref := object.Map(from, "fieldRef"); ref != nil {
		object.Default(ref, "v1", "apiVersion")
	}
}

// defaultProbe changes a probe: kubelets take the numbers as they are.
func defaultProbe(p object.Object) {
	if p == nil {
		return
	}
	for name, n := range map[string]int64{"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1} {
		if have, _ := object.Int(p, name); have == 0 {
			p[name] = n
		}
	}
	defaultGet(object.Map(p, "httpGet"))
	if g := object.Map(p, "grpc"); g != nil {
		object.Default(g, "", "service")
	}
}

func defaultGet(get object.Object) {
	if get != nil {
		object.Default(get, "/", "path")
		object.Default(get, "HTTP", "scheme")
	}
}

func defaultContainer(c object.Object) {
	object.Default(c, "/dev/termination-log", "terminationMessagePath")
	object.Default(c, "File", "terminationMessagePolicy")
	object.Default(c, object.Object{}, "resources")
	object.Default(c, pullPolicy(object.String(c, "image")), "imagePullPolicy")
	eachOf(c, "ports", func(p object.Object) { object.Default(p, "TCP", "protocol") })
	for _, name := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
		defaultProbe(object.Map(c, name))
	}
	for _, name := range []string{"postStart", "preStop"} {
		defaultGet(object.Map(c, "lifecycle", name, "httpGet"))
	}
	eachOf(c, "env", func(e object.Object) { defaultFieldRef(object.Map(e, "valueFrom")) })
}

// defaultRequests changes a pod's spec: who limits a resource and does not say how much
// it needs needs all of it.
func defaultRequests(spec object.Object) {
	for _, list := range []string{"containers", "initContainers"} {
		eachOf(spec, list, func(c object.Object) {
			for name, limit := range object.Map(c, "resources", "limits") {
				if object.Get(c, "resources", "requests", name) == nil {
					object.Set(c, limit, "resources", "requests", name)
				}
			}
		})
	}
}

// admitPod gives a pod its priority, tolerations and class of service.
func admitPod(o object.Object) {
	spec := object.Map(o, "spec")
	if spec == nil {
		return
	}
	object.Default(spec, "PreemptLowerPriority", "preemptionPolicy")
	object.Default(spec, int64(0), "priority")
	for _, key := range []string{"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"} {
		list := object.List(spec, "tolerations")
		if !slices.ContainsFunc(list, func(v any) bool {
			t, _ := v.(object.Object)
			return t["key"] == key || t["key"] == nil && t["operator"] == "Exists"
		}) {
			spec["tolerations"] = append(list, object.Object{"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": int64(300)})
		}
	}
	object.Default(o, qualityOf(spec), "status", "qosClass")
}

// qualityOf is a pod's class of service: best effort without any requests or
// limits, guaranteed when every container has limits that are its requests.
func qualityOf(spec object.Object) string {
	some, all := false, true
	for _, list := range []string{"containers", "initContainers"} {
		for _, v := range object.List(spec, list) {
			c, _ := v.(object.Object)
			requests, limits := object.Map(c, "resources", "requests"), object.Map(c, "resources", "limits")
			some = some || len(requests)+len(limits) > 0
			for _, name := range []string{"cpu", "memory"} {
				all = all && limits[name] != nil && (requests[name] == nil || object.Equal(requests[name], limits[name]))
			}
		}
	}
	switch {
	case !some:
		return "BestEffort"
	case all:
		return "Guaranteed"
	}
	return "Burstable"
}

// pullPolicy: an image without a tag, or with the latest, may change.
func pullPolicy(image string) string {
	name := image
	for i := len(image) - 1; i >= 0; i-- {
		if image[i] == '/' {
			name = image[i+1:]
			break
		}
	}
	tag := "latest"
	for i := range len(name) {
		if name[i] == '@' {
			return "IfNotPresent"
		}
		if name[i] == ':' {
			tag = name[i+1:]
		}
	}
	if tag == "latest" {
		return "Always"
	}
	return "IfNotPresent"
}
