package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
)

// Stub is an object of a kind that kube-apiserver persists: what
// upstream/stubs prints.
type Stub struct {
	schema.GroupVersionResource
	Object *unstructured.Unstructured
	Key    string
	Stored string // apiVersion in the store, if it is not the resource's own
}

// APIVersion is what the store should hold the object in.
func (s Stub) APIVersion() string {
	if s.Stored != "" {
		return s.Stored
	}
	return s.GroupVersion().String()
}

// Stubs are all of them, with what they need.
type Stubs struct {
	Namespace   string
	Definitions []*unstructured.Unstructured // of the custom ones
	Stubs       []Stub
}

// LoadStubs reads the list that `make kube-bin` made.
func LoadStubs() (Stubs, error) {
	path, err := program("kube-stubs.json")
	if err != nil {
		return Stubs{}, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Stubs{}, err
	}
	var raw struct {
		Namespace   string
		Definitions []map[string]any
		Stubs       []struct {
			schema.GroupVersionResource
			Object      map[string]any
			Key, Stored string
		}
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return Stubs{}, fmt.Errorf("%s: %w", path, err)
	}
	out := Stubs{Namespace: raw.Namespace}
	for _, d := range raw.Definitions {
		out.Definitions = append(out.Definitions, &unstructured.Unstructured{Object: d})
	}
	for _, s := range raw.Stubs {
		out.Stubs = append(out.Stubs, Stub{s.GroupVersionResource, &unstructured.Unstructured{Object: s.Object}, s.Key, s.Stored})
	}
	if len(out.Stubs) == 0 {
		return out, errors.New("no stubs in " + path)
	}
	return out, nil
}

// Writer creates objects of any kind.
type Writer struct {
	client    dynamic.Interface
	discovery *discovery.DiscoveryClient
	served    map[schema.GroupVersionResource]metav1.APIResource
}

// NewWriter makes one for a target.
func NewWriter(t Target) (*Writer, error) {
	client, err := dynamic.NewForConfig(t.Config())
	if err != nil {
		return nil, err
	}
	d, err := discovery.NewDiscoveryClientForConfig(t.Config())
	return &Writer{client: client, discovery: d}, err
}

// Discover asks which resources are served, until all that are wanted are.
func (w *Writer) Discover(ctx context.Context, wanted []Stub) error {
	for {
		_, lists, err := w.discovery.ServerGroupsAndResources()
		w.served = map[schema.GroupVersionResource]metav1.APIResource{}
		for _, l := range lists {
			gv, parseErr := schema.ParseGroupVersion(l.GroupVersion)
			if parseErr != nil {
				return parseErr
			}
			for _, r := range l.APIResources {
				w.served[gv.WithResource(r.Name)] = r
			}
		}
		for _, s := range wanted {
			if !w.Serves(s.GroupVersionResource) {
				err = errors.Join(err, fmt.Errorf("%s is not served", s.GroupVersionResource))
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pollEvery):
		}
	}
}

// Serves reports whether the server has a resource.
func (w *Writer) Serves(gvr schema.GroupVersionResource) bool {
	_, ok := w.served[gvr]
	return ok
}

// Create makes an object. One that is there already is fine.
func (w *Writer) Create(ctx context.Context, gvr schema.GroupVersionResource, o *unstructured.Unstructured, namespace string) error {
	r, ok := w.served[gvr]
	if !ok {
		return fmt.Errorf("%s is not served", gvr)
	}
	o.SetGroupVersionKind(gvr.GroupVersion().WithKind(r.Kind))
	var to dynamic.ResourceInterface = w.client.Resource(gvr)
	if r.Namespaced {
		to = w.client.Resource(gvr).Namespace(namespace)
	}
	_, err := to.Create(ctx, o, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = nil
	}
	return err
}

// CreateAll makes the definitions and then every stub, and gives those that the
// server refused.
func (w *Writer) CreateAll(ctx context.Context, all Stubs) (refused map[string]error, err error) {
	if err := w.Discover(ctx, nil); err != nil {
		return nil, err
	}
	ns := &unstructured.Unstructured{}
	ns.SetName(all.Namespace)
	if err := w.Create(ctx, schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, ns, ""); err != nil {
		return nil, err
	}
	definitions := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	for _, d := range all.Definitions {
		if err := w.Create(ctx, definitions, d, ""); err != nil {
			return nil, err
		}
	}
	if err := w.Discover(ctx, all.Stubs); err != nil {
		return nil, err
	}
	refused = map[string]error{}
	for _, s := range all.Stubs {
		if err := w.Create(ctx, s.GroupVersionResource, s.Object, all.Namespace); err != nil {
			refused[s.Key] = err
		}
	}
	return refused, nil
}
