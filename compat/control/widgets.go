package control

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What the tests and cmd/manager share: a kind that is defined at run time and
// what a controller makes of it.
const (
	Namespace    = "default"
	ElectionName = "widgets"
	Finalizer    = "demo.io/cleanup"
	// WriterAnnotation names the process that wrote an object last.
	WriterAnnotation = "demo.io/writer"
)

var (
	widgetKind      = schema.GroupVersionKind{Group: "demo.io", Version: "v1", Kind: "Widget"}
	widgetResource  = schema.GroupVersionResource{Group: "demo.io", Version: "v1", Resource: "widgets"}
	definitions     = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	configMaps      = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	pods            = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	leases          = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	deployments     = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	replicaSets     = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}
	widgetsRegistry = "/registry/demo.io/widgets/"
)

// NewWidget makes a Widget.
func NewWidget(namespace, name string, replicas int64) *unstructured.Unstructured {
	w := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": replicas}}}
	w.SetGroupVersionKind(widgetKind)
	w.SetNamespace(namespace)
	w.SetName(name)
	return w
}

// LeftBehind is the name of the ConfigMap that a finalizer leaves for a Widget.
func LeftBehind(widget string) string { return "was-" + widget }

// DeploymentOf is what the controller makes of a Widget, as it is applied.
func DeploymentOf(w *unstructured.Unstructured, replicas int64) *unstructured.Unstructured {
	labels := map[string]any{"widget": w.GetName()}
	d := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"spec": map[string]any{
			"replicas": replicas, "selector": map[string]any{"matchLabels": labels},
			"template": map[string]any{
				"metadata": map[string]any{"labels": labels},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "main", "image": "demo.io/widget"}}},
			},
		},
	}}
	d.SetNamespace(w.GetNamespace())
	d.SetName(w.GetName())
	yes := true
	d.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: widgetKind.GroupVersion().String(), Kind: widgetKind.Kind, Name: w.GetName(), UID: w.GetUID(), Controller: &yes, BlockOwnerDeletion: &yes,
	}})
	return d
}

// widgetDefinition defines Widgets: with a schema and a status of its own.
func widgetDefinition() *unstructured.Unstructured {
	number := map[string]any{"type": "integer"}
	object := func(properties map[string]any) map[string]any {
		return map[string]any{"type": "object", "properties": properties}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "widgets.demo.io"},
		"spec": map[string]any{
			"group": "demo.io", "scope": "Namespaced",
			"names": map[string]any{"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
			"versions": []any{map[string]any{
				"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": object(map[string]any{
					"spec":   object(map[string]any{"replicas": number, "text": map[string]any{"type": "string"}}),
					"status": object(map[string]any{"replicas": number, "observedGeneration": number, "writer": map[string]any{"type": "string"}}),
				})},
			}},
		},
	}}
}

// Said is a line of what cmd/manager prints.
type Said struct {
	At     time.Time `json:"at"`
	What   string    `json:"what"`
	Object string    `json:"object,omitempty"`
	Error  string    `json:"error,omitempty"`
}

// What a manager says.
const (
	SaidReady      = "ready"      // it begins to ask for the lease
	SaidLeads      = "leads"      // it holds the lease
	SaidYields     = "yields"     // it no longer acts
	SaidReconciled = "reconciled" // one object
	SaidStopped    = "stopped"    // it ends
)
