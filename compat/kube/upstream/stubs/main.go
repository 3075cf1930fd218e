// Command stubs prints, as JSON, an object of every kind that kube-apiserver
// persists, the key it belongs at and the version it is stored in. These are the
// facts of Kubernetes' own test of its storage paths, which asks for an object
// of each new kind.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/test/integration/etcd"
)

// Namespace is where the objects that need one live.
const Namespace = "every-kind"

type stub struct {
	schema.GroupVersionResource
	Object json.RawMessage
	Key    string
	Stored string `json:",omitempty"` // apiVersion in the store, when it is another one
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stubs:", err)
		os.Exit(1)
	}
}

func run() error {
	var out struct {
		Namespace   string
		Definitions []any
		Stubs       []stub
	}
	out.Namespace = Namespace
	for _, crd := range etcd.GetCustomResourceDefinitionData() {
		crd.APIVersion, crd.Kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
		out.Definitions = append(out.Definitions, crd)
	}
	for gvr, data := range etcd.GetEtcdStorageDataForNamespace(Namespace) {
		if len(data.Prerequisites) > 0 {
			return fmt.Errorf("%s needs other objects first, which is not foreseen", gvr)
		}
		s := stub{GroupVersionResource: gvr, Object: json.RawMessage(data.Stub), Key: data.ExpectedEtcdPath}
		if data.ExpectedGVK != nil {
			s.Stored = data.ExpectedGVK.GroupVersion().String()
		}
		out.Stubs = append(out.Stubs, s)
	}
	slices.SortFunc(out.Stubs, func(a, b stub) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Version, b.Version))
	})
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", " ")
	return e.Encode(out)
}
