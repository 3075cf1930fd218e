package kube

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

// Kubelet says of pods what a node's agent would say: they run and are ready,
// pods of Jobs have succeeded, and pods that are being deleted are gone. It runs
// until ctx ends.
func Kubelet(ctx context.Context, t Target) error {
	client, err := dynamic.NewForConfig(t.Config())
	if err != nil {
		return err
	}
	pods := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"})
	informer := dynamicinformer.NewFilteredDynamicInformer(client, schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "", 0, cache.Indexers{}, nil).Informer()
	// An error is forgotten: the next change of the pod, or the next pod, brings
	// it back; what then is missing shows in what kubectl prints.
	see := func(v any) {
		o, ok := v.(*unstructured.Unstructured)
		if !ok {
			return
		}
		to := pods.Namespace(o.GetNamespace())
		if o.GetDeletionTimestamp() != nil {
			now := int64(0)
			_ = to.Delete(ctx, o.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now})
			return
		}
		if phase, _, _ := unstructured.NestedString(o.Object, "status", "phase"); phase != "" && phase != "Pending" {
			return
		}
		_, _ = to.Patch(ctx, o.GetName(), types.MergePatchType, podStatus(o), metav1.PatchOptions{FieldManager: "kubelet"}, "status")
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, v any) { see(v) }}); err != nil {
		return err
	}
	informer.RunWithContext(ctx)
	return nil
}

// podStatus is a patch that says that all containers of a pod run, or have ended
// well if the pod does not start them again.
func podStatus(o *unstructured.Unstructured) []byte {
	phase, ready, state := "Running", "True", map[string]any{"running": map[string]any{"startedAt": "2020-01-01T00:00:00Z"}}
	if policy, _, _ := unstructured.NestedString(o.Object, "spec", "restartPolicy"); policy != "Always" && policy != "" {
		phase, ready, state = "Succeeded", "False", map[string]any{"terminated": map[string]any{"exitCode": 0, "reason": "Completed"}}
	}
	containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "containers")
	var statuses []any
	for _, c := range containers {
		m, _ := c.(map[string]any)
		statuses = append(statuses, map[string]any{
			"name": m["name"], "image": m["image"], "imageID": "", "restartCount": 0, "ready": ready == "True", "started": ready == "True", "state": state,
		})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"phase": phase, "podIP": "10.1.0.1", "podIPs": []any{map[string]any{"ip": "10.1.0.1"}}, "hostIP": "192.0.2.9",
		"startTime": "2020-01-01T00:00:00Z", "containerStatuses": statuses,
		"conditions": []any{map[string]any{"type": "Ready", "status": ready, "lastTransitionTime": "2020-01-01T00:00:00Z"}},
	}})
	if err != nil {
		panic(fmt.Sprintf("a map of strings does not marshal: %v", err))
	}
	return patch
}
