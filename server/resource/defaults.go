package resource

import (
	"encoding/base64"
	"strings"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Defaults that users and controllers see and count on. They are filled in when
// an object is written; a kube-apiserver knows many more, which only say what
// absence means. What a server's admission adds is nobody's (admit); defaults are
// whose object it is.

// applyDefaults changes o.
func applyDefaults(k *Kind, o object.Object) {
	if k.Schema != nil {
		k.Schema.prune(o)
		k.Schema.fill(o)
		return
	}
	switch k.qualified() {
	case "namespaces":
		// It can be selected by its name.
		object.Set(o, object.String(o, "metadata", "name"), "metadata", "labels", "kubernetes.io/metadata.name")
	case "secrets":
		defaultSecret(o)
	case "limitranges":
		defaultLimits(o)
	case "services":
		defaultService(o)
	case "endpoints":
		eachOf(o, "subsets", func(subset object.Object) {
			eachOf(subset, "ports", func(p object.Object) { object.Default(p, "TCP", "protocol") })
		})
	case "podtemplates":
		defaultPodSpec(object.Map(o, "template", "spec"))
	case "pods":
		defaultPod(o)
	case "replicationcontrollers", "replicasets.apps", "deployments.apps", "statefulsets.apps":
		object.Default(o, int64(1), "spec", "replicas")
		defaultPodSpec(object.Map(o, "spec", "template", "spec"))
		defaultRollout(k, o)
	case "daemonsets.apps":
		defaultPodSpec(object.Map(o, "spec", "template", "spec"))
		object.Default(o, int64(10), "spec", "revisionHistoryLimit")
		defaultRolling(o, object.Object{"maxSurge": int64(0), "maxUnavailable": int64(1)})
	case "jobs.batch":
		defaultJob(o)
	case "cronjobs.batch":
		defaultPodSpec(object.Map(o, "spec", "jobTemplate", "spec", "template", "spec"))
		object.Default(o, "Allow", "spec", "concurrencyPolicy")
		object.Default(o, false, "spec", "suspend")
		object.Default(o, int64(3), "spec", "successfulJobsHistoryLimit")
		object.Default(o, int64(1), "spec", "failedJobsHistoryLimit")
	case "persistentvolumeclaims":
		object.Default(o, "Filesystem", "spec", "volumeMode")
	case "persistentvolumes":
		object.Default(o, "Retain", "spec", "persistentVolumeReclaimPolicy")
		object.Default(o, "Filesystem", "spec", "volumeMode")
	case "storageclasses.storage.k8s.io":
		object.Default(o, "Delete", "reclaimPolicy")
		object.Default(o, "Immediate", "volumeBindingMode")
	case "rolebindings.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io":
		eachOf(o, "subjects", func(s object.Object) {
			if s["kind"] != "ServiceAccount" {
				object.Default(s, k.Group, "apiGroup")
			}
		})
	case "priorityclasses.scheduling.k8s.io":
		object.Default(o, "PreemptLowerPriority", "preemptionPolicy")
	case "networkpolicies.networking.k8s.io":
		types := []any{"Ingress"}
		if len(object.List(o, "spec", "egress")) > 0 {
			types = append(types, "Egress")
		}
		object.Default(o, types, "spec", "policyTypes")
	case "customresourcedefinitions.apiextensions.k8s.io":
		defaultDefinition(o)
	case "horizontalpodautoscalers.autoscaling":
		defaultAutoscaler(k, o)
	}
}

// defaultJob: a job is one pod, unless it says otherwise.
func defaultJob(o object.Object) {
	defaultPodSpec(object.Map(o, "spec", "template", "spec"))
	object.Default(o, int64(6), "spec", "backoffLimit")
	object.Default(o, "NonIndexed", "spec", "completionMode")
	object.Default(o, "TerminatingOrFailed", "spec", "podReplacementPolicy")
	object.Default(o, false, "spec", "suspend")
	if object.Get(o, "spec", "completions") == nil && object.Get(o, "spec", "parallelism") == nil {
		object.Default(o, int64(1), "spec", "completions")
	}
	object.Default(o, int64(1), "spec", "parallelism")
}

// eachOf calls fn for each object of a list.
func eachOf(o object.Object, list string, fn func(object.Object)) {
	for _, v := range object.List(o, list) {
		if e, ok := v.(object.Object); ok {
			fn(e)
		}
	}
}

// defaultRolling fills in that pods are replaced one after the other, and how.
func defaultRolling(o, how object.Object) {
	if object.Get(o, "spec", "updateStrategy") == nil {
		object.Set(o, object.Object{}, "spec", "updateStrategy")
	}
	object.Default(o, "RollingUpdate", "spec", "updateStrategy", "type")
	if object.String(o, "spec", "updateStrategy", "type") != "RollingUpdate" {
		return
	}
	if object.Get(o, "spec", "updateStrategy", "rollingUpdate") == nil {
		object.Set(o, object.Object{}, "spec", "updateStrategy", "rollingUpdate")
	}
	for name, v := range how {
		object.Default(o, v, "spec", "updateStrategy", "rollingUpdate", name)
	}
}

// admit changes o: it fills in what a kube-apiserver's admission and strategies do.
func admit(k *Kind, o object.Object) {
	switch k.qualified() {
	case "namespaces":
		admitNamespace(o)
	case "pods":
		defaultPhase(o)
		admitPod(o)
	case "jobs.batch":
		selectOwnPods(o)
		if len(object.Map(o, "metadata", "labels")) == 0 && object.Map(o, "spec", "template", "metadata", "labels") != nil {
			object.Set(o, object.Copy(object.Map(o, "spec", "template", "metadata", "labels")), "metadata", "labels")
		}
	case "persistentvolumeclaims", "persistentvolumes":
		defaultPhase(o)
	case "customresourcedefinitions.apiextensions.k8s.io":
		establish(o)
	}
}

func defaultPhase(o object.Object) {
	if object.Map(o, "status") == nil {
		o["status"] = object.Object{}
	}
	object.Default(o, "Pending", "status", "phase")
}

// admitNamespace: a namespace is active, and holds itself until it is empty.
func admitNamespace(o object.Object) {
	if object.String(o, "metadata", "deletionTimestamp") != "" {
		return
	}
	if len(object.List(o, "spec", "finalizers")) == 0 {
		object.Set(o, []any{"kubernetes"}, "spec", "finalizers")
	}
	if object.String(o, "status", "phase") == "" {
		object.Set(o, "Active", "status", "phase")
	}
}

// defaultRollout fills in how workloads replace their pods.
func defaultRollout(k *Kind, o object.Object) {
	switch k.Plural {
	case "deployments":
		if object.Get(o, "spec", "strategy") == nil {
			object.Set(o, object.Object{}, "spec", "strategy")
		}
		object.Default(o, "RollingUpdate", "spec", "strategy", "type")
		if object.String(o, "spec", "strategy", "type") == "RollingUpdate" {
			if object.Get(o, "spec", "strategy", "rollingUpdate") == nil {
				object.Set(o, object.Object{}, "spec", "strategy", "rollingUpdate")
			}
			object.Default(o, "25%", "spec", "strategy", "rollingUpdate", "maxUnavailable")
			object.Default(o, "25%", "spec", "strategy", "rollingUpdate", "maxSurge")
		}
		object.Default(o, int64(10), "spec", "revisionHistoryLimit")
		object.Default(o, int64(600), "spec", "progressDeadlineSeconds")
	case "statefulsets":
		object.Default(o, "OrderedReady", "spec", "podManagementPolicy")
		object.Default(o, object.Object{"whenDeleted": "Retain", "whenScaled": "Retain"}, "spec", "persistentVolumeClaimRetentionPolicy")
		defaultRolling(o, object.Object{"partition": int64(0)})
		object.Default(o, int64(10), "spec", "revisionHistoryLimit")
	case "replicationcontrollers":
		// A controller without a selector selects by its template's labels, and has them without its own.
		if labels := object.Map(o, "spec", "template", "metadata", "labels"); labels != nil {
			object.Default(o, object.Copy(labels), "spec", "selector")
			object.Default(o, object.Copy(labels), "metadata", "labels")
		}
	}
}

// selectOwnPods gives a job a selector that no other job's pods match, and its
// template the labels for it, unless the job has chosen its own.
func selectOwnPods(o object.Object) {
	uid := object.String(o, "metadata", "uid")
	if manual, _ := object.Get(o, "spec", "manualSelector").(bool); manual || uid == "" || object.Map(o, "spec", "template") == nil || object.Get(o, "spec", "selector") != nil {
		return
	}
	const owner = "batch.kubernetes.io/controller-uid"
	name := object.String(o, "metadata", "name")
	for label, v := range map[string]string{owner: uid, "batch.kubernetes.io/job-name": name, "controller-uid": uid, "job-name": name} {
		object.Set(o, v, "spec", "template", "metadata", "labels", label)
	}
	object.Set(o, uid, "spec", "selector", "matchLabels", owner)
}

// defaultService changes a service: what absence means is written out.
func defaultService(o object.Object) {
	object.Default(o, "ClusterIP", "spec", "type")
	object.Default(o, "None", "spec", "sessionAffinity")
	switch object.String(o, "spec", "type") {
	case "LoadBalancer":
		object.Default(o, true, "spec", "allocateLoadBalancerNodePorts")
		fallthrough
	case "NodePort":
		object.Default(o, "Cluster", "spec", "externalTrafficPolicy")
		fallthrough
	case "ClusterIP":
		object.Default(o, "Cluster", "spec", "internalTrafficPolicy")
	}
	eachPort(o)
}

// defaultDefinition changes a definition: the names that follow from others.
func defaultDefinition(o object.Object) {
	if kind := object.String(o, "spec", "names", "kind"); kind != "" {
		object.Default(o, strings.ToLower(kind), "spec", "names", "singular")
		object.Default(o, kind+"List", "spec", "names", "listKind")
	}
	object.Default(o, object.Object{"strategy": "None"}, "spec", "conversion")
}

// eachPort changes a service: what absence means is written out.
func eachPort(o object.Object) {
	for _, v := range object.List(o, "spec", "ports") {
		if p, ok := v.(object.Object); ok {
			object.Default(p, "TCP", "protocol")
			if n, isNumber := object.Int(p, "targetPort"); p["port"] != nil && (p["targetPort"] == nil || p["targetPort"] == "" || isNumber && n == 0) {
				p["targetPort"] = p["port"]
			}
		}
	}
}

// defaultSecret: what is sent as text is stored as bytes.
func defaultSecret(o object.Object) {
	object.Default(o, "Opaque", "type")
	texts := object.Map(o, "stringData")
	for name, v := range texts {
		if s, ok := v.(string); ok {
			object.Set(o, base64.StdEncoding.EncodeToString([]byte(s)), "data", name)
		}
	}
	delete(o, "stringData")
}
