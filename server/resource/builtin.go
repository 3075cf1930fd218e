package resource

import (
	"slices"
	"strings"
	"sync"

	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// registryRoot is where a kube-apiserver keeps its objects.
const registryRoot = "/registry/"

// builtinKinds are the kinds of the generated table that are stored, and those
// that only answer (reviews). What the table does not say stands below.
var builtinKinds = sync.OnceValue(func() []*Kind {
	var out []*Kind
	for _, r := range kinds.Resources() {
		k := &Kind{
			Group: r.Group, Version: r.Version, Name: r.Kind, Plural: r.Name, Singular: r.Singular(), ListName: r.Kind + "List",
			Short: r.Short, Categories: r.Categories, Namespaced: r.Namespaced,
			Status: slices.Contains(r.Subresources, "status"),
		}
		if k.Group == "" && k.Plural == "namespaces" {
			k.Verbs = slices.DeleteFunc(slices.Clone(allVerbs), func(v string) bool { return v == "deletecollection" })
		}
		switch {
		case versionRank(r.Version)[0] < stable || r.Group == "storagemigration.k8s.io":
			continue // as in a kube-apiserver, unless it is told to
		case unstored[k.qualified()] != nil:
			k.Verbs = unstored[k.qualified()]
		case r.Prefix == "":
			continue
		default:
			k.Prefix = registryRoot + r.Prefix + "/"
		}
		if slices.Contains(r.Subresources, "scale") {
			k.Scale = builtinScale
		}
		name := k.qualified()
		k.Generation = counted[name]
		k.UpsertByPut = upserted[name]
		k.TTL = r.Name == "events"
		for _, f := range selectable[name] {
			k.Fields = append(k.Fields, builtinField(f))
		}
		if m := kinds.Lookup(k.APIVersion(), k.Name); m != nil {
			k.Rules, k.Layout = messageRules{m}, m
		}
		if name == "events.events.k8s.io" {
			k.Stored, k.From, k.Into = "v1", eventFromCore, eventIntoCore
		}
		out = append(out, k)
		if name == "horizontalpodautoscalers.autoscaling" {
			k.siblings = []*Kind{k, olderAutoscaler(k)}
			k.siblings[1].siblings = k.siblings
			out = append(out, k.siblings[1])
		}
	}
	return out
})

// unstored are resources that have no objects in the store, and what can be done with them: of
// reviews a POST is a question, of bindings an order.
var unstored = map[string][]string{
	"bindings": {"create"}, "componentstatuses": {"get", "list"},
	"selfsubjectreviews.authentication.k8s.io": {"create"}, "tokenreviews.authentication.k8s.io": {"create"},
	"localsubjectaccessreviews.authorization.k8s.io": {"create"}, "selfsubjectaccessreviews.authorization.k8s.io": {"create"},
	"selfsubjectrulesreviews.authorization.k8s.io": {"create"}, "subjectaccessreviews.authorization.k8s.io": {"create"},
}

// counted are the kinds whose changes of the spec are counted in
// metadata.generation.
var counted = set("pods", "replicationcontrollers", "deployments.apps", "replicasets.apps", "daemonsets.apps", "statefulsets.apps",
	"podtemplates", "resourceslices.resource.k8s.io", "deviceclasses.resource.k8s.io",
	"mutatingadmissionpolicies.admissionregistration.k8s.io", "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
	"jobs.batch", "cronjobs.batch", "ingresses.networking.k8s.io", "networkpolicies.networking.k8s.io", "poddisruptionbudgets.policy",
	"endpointslices.discovery.k8s.io", "ingressclasses.networking.k8s.io", "flowschemas.flowcontrol.apiserver.k8s.io",
	"prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", "priorityclasses.scheduling.k8s.io",
	"customresourcedefinitions.apiextensions.k8s.io", "validatingwebhookconfigurations.admissionregistration.k8s.io",
	"mutatingwebhookconfigurations.admissionregistration.k8s.io", "validatingadmissionpolicies.admissionregistration.k8s.io",
	"validatingadmissionpolicybindings.admissionregistration.k8s.io")

// upserted are the kinds that a PUT may create.
var upserted = set("endpoints", "events", "limitranges", "events.events.k8s.io", "leases.coordination.k8s.io", "priorityclasses.scheduling.k8s.io",
	"roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io", "clusterroles.rbac.authorization.k8s.io",
	"clusterrolebindings.rbac.authorization.k8s.io", "services", "nodes")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// builtinScale is where all built-in kinds that scale have it.
var builtinScale = &Scale{Spec: []string{"spec", "replicas"}, Status: []string{"status", "replicas"}, Selector: []string{"spec", "selector"}, Object: true}

// selectable are the fields that lists can be restricted by, beside name and
// namespace: "field", or "field=value when absent".
var selectable = map[string][]string{
	"pods": {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork=false",
		"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"},
	"nodes":                  {"spec.unschedulable=false"},
	"namespaces":             {"status.phase"},
	"secrets":                {"type"},
	"services":               {"spec.clusterIP", "spec.type"},
	"replicationcontrollers": {"status.replicas=0"},
	"replicasets.apps":       {"status.replicas=0"},
	"jobs.batch":             {"status.successful=0"},
	"events": {"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
		"involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"},
	"events.events.k8s.io":                           {"reason", "reportingController", "type", "regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid"},
	"certificatesigningrequests.certificates.k8s.io": {"spec.signerName"},
}

// storedAt names fields whose place differs from their name.
var storedAt = map[string]string{
	"source": "source.component", "status.successful": "status.succeeded",
	"reportingController": "reportingComponent", "regarding.kind": "involvedObject.kind", "regarding.namespace": "involvedObject.namespace",
	"regarding.name": "involvedObject.name", "regarding.uid": "involvedObject.uid",
}

func builtinField(s string) SelectableField {
	name, value, _ := strings.Cut(s, "=")
	at := name
	if other, ok := storedAt[name]; ok {
		at = other
	}
	return SelectableField{name, strings.Split(at, "."), value}
}

// messageRules are the merge rules of a message of the generated table.
type messageRules struct{ m *kinds.Message }

// Field implements object.Rules.
func (r messageRules) Field(name string) (object.Rule, bool) {
	f := r.m.Field(name)
	if f == nil {
		return object.Rule{}, false
	}
	strategies := strings.Split(f.PatchStrategy, ",")
	rule := object.Rule{
		MergeList: f.List && slices.Contains(strategies, "merge"), Key: f.MergeKey,
		ReplaceMap: !f.List && slices.Contains(strategies, "replace"),
	}
	if f.Message != nil {
		rule.Below = messageRules{f.Message}
	}
	return rule, true
}

// unknownFields names the fields of an object that its kind does not have.
func unknownFields(k *Kind, o object.Object) []string {
	if k.Layout == nil {
		if k.Schema != nil {
			return k.Schema.unknown(o, "")
		}
		return nil
	}
	return k.Layout.Unknown(o)
}

// decodeProtobuf reads Kubernetes' protobuf envelope as JSON.
func decodeProtobuf(b []byte) ([]byte, error) {
	o, err := kinds.Decode(b)
	if err != nil {
		return nil, err
	}
	return object.Encode(o.Fields), nil
}
