package resource

import (
	"context"
	"slices"

	"github.com/keelson-io/keelson/server/resource/object"
)

// The roles that a cluster with RBAC begins with: a kube-apiserver's, as far as
// people use them. Components' own roles are for whoever installs them.

func roleRule(verbs, groups, resources []string) object.Object {
	return object.Object{"verbs": object.Anys(verbs), "apiGroups": object.Anys(groups), "resources": object.Anys(resources)}
}

func pathRule(paths ...string) object.Object {
	return object.Object{"verbs": []any{"get"}, "nonResourceURLs": object.Anys(paths)}
}

var (
	readVerbs  = []string{"get", "list", "watch"}
	writeVerbs = []string{"create", "delete", "deletecollection", "patch", "update"}
	anything   = []string{"*"}
	// What people work with in a namespace. Secrets are not for everybody who may look.
	workGroups = []string{"", "apps", "batch", "autoscaling", "networking.k8s.io", "policy", "discovery.k8s.io", "events.k8s.io"}
	workThings = []string{"configmaps", "endpoints", "endpointslices", "events", "persistentvolumeclaims", "pods", "pods/*", "replicationcontrollers", "replicationcontrollers/*",
		"serviceaccounts", "services", "services/*", "daemonsets", "daemonsets/*", "deployments", "deployments/*", "replicasets", "replicasets/*",
		"statefulsets", "statefulsets/*", "controllerrevisions", "cronjobs", "cronjobs/*", "jobs", "jobs/*", "horizontalpodautoscalers",
		"horizontalpodautoscalers/*", "ingresses", "ingresses/*", "networkpolicies", "poddisruptionbudgets", "poddisruptionbudgets/*"}
	setThings = []string{"limitranges", "namespaces", "resourcequotas", "resourcequotas/status", "namespaces/status"}
)

// clusterRoles are the rules of each, by name.
func clusterRoles() map[string][]any {
	view := []any{roleRule(readVerbs, workGroups, workThings), roleRule(readVerbs, []string{""}, setThings)}
	edit := append(slices.Clone(view), roleRule(writeVerbs, workGroups, workThings),
		roleRule(slices.Concat(readVerbs, writeVerbs), []string{"", "coordination.k8s.io"}, []string{"secrets", "leases"}))
	return map[string][]any{
		"cluster-admin": {roleRule(anything, anything, anything), object.Object{"verbs": []any{"*"}, "nonResourceURLs": []any{"*"}}},
		"view":          view,
		"edit":          edit,
		"admin": append(slices.Clone(edit), roleRule(slices.Concat(readVerbs, writeVerbs), []string{rbacGroup}, []string{"roles", "rolebindings"}),
			roleRule([]string{"create"}, []string{"authorization.k8s.io"}, []string{"localsubjectaccessreviews"})),
		"system:basic-user": {roleRule([]string{"create"}, []string{"authorization.k8s.io"}, []string{"selfsubjectaccessreviews", "selfsubjectrulesreviews"}),
			roleRule([]string{"create"}, []string{"authentication.k8s.io"}, []string{"selfsubjectreviews"})},
		"system:discovery":          {pathRule("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/")},
		"system:public-info-viewer": {pathRule("/healthz", "/livez", "/readyz", "/version", "/version/")},
	}
}

// bootstrapRights makes the roles and bindings that are missing. One that was
// changed stays as it is.
func (l *Layer) bootstrapRights(ctx context.Context) error {
	roles := l.catalog.Load().named(rbacGroup+"/v1", "ClusterRole")
	bindings := l.catalog.Load().named(rbacGroup+"/v1", "ClusterRoleBinding")
	for name, rules := range clusterRoles() {
		labels := object.Object{"labels": object.Object{"kubernetes.io/bootstrapping": "rbac-defaults"}}
		if err := l.ensure(ctx, roles, "", name, object.Object{"metadata": labels, "rules": rules}); err != nil {
			return err
		}
	}
	for name, groups := range map[string][]string{
		"cluster-admin": {groupMasters}, "system:basic-user": {groupKnown}, "system:discovery": {groupKnown},
		"system:public-info-viewer": {groupKnown, groupUnknown},
	} {
		var subjects []any
		for _, g := range groups {
			subjects = append(subjects, object.Object{"kind": "Group", "apiGroup": rbacGroup, "name": g})
		}
		b := object.Object{"roleRef": object.Object{"apiGroup": rbacGroup, "kind": "ClusterRole", "name": name}, "subjects": subjects}
		if err := l.ensure(ctx, bindings, "", name, b); err != nil {
			return err
		}
	}
	return nil
}
