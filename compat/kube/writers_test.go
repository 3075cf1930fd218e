package kube

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

var (
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
)

// namesPerWriter bounds how many objects there are, however fast the writers.
const namesPerWriter = 40

// callLimit bounds a call whose server does not answer.
const callLimit = 15 * time.Second

// writers create, update and delete config maps, each its own names, and know
// for each name what was acknowledged last.
type writers struct {
	client dynamic.ResourceInterface
	acked  atomic.Int64 // changes

	mu struct {
		sync.Mutex
		holds map[string]string // name to generation; absent: deleted or never made
		wrong []string
		why   map[string]int // what calls in doubt ended with
	}
}

func newWriters(client dynamic.ResourceInterface) *writers {
	w := &writers{client: client}
	w.mu.holds, w.mu.why = map[string]string{}, map[string]int{}
	return w
}

func configMap(name, generation string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": name},
		"data":     map[string]any{"generation": generation},
	}}
}

// write changes the names of writer id until stop is closed.
func (w *writers) write(ctx context.Context, id int, stop <-chan struct{}) {
	chance := rand.New(rand.NewPCG(1, uint64(id)))
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		default:
		}
		w.change(ctx, fmt.Sprintf("w%d-%d", id, chance.IntN(namesPerWriter)), fmt.Sprintf("%d-%d", id, n), chance.IntN(4) == 0)
	}
}

// change makes one change. An error leaves it open whether it was made: then the
// name is read until there is an answer, which must be the state before or the
// state after.
func (w *writers) change(ctx context.Context, name, generation string, remove bool) {
	before := w.held(name)
	after := generation
	call, cancel := context.WithTimeout(ctx, callLimit)
	var err error
	switch {
	case before == "":
		_, err = w.client.Create(call, configMap(name, generation), metav1.CreateOptions{})
	case remove:
		after = ""
		err = w.client.Delete(call, name, metav1.DeleteOptions{})
	default:
		_, err = w.client.Update(call, configMap(name, generation), metav1.UpdateOptions{})
	}
	cancel()
	if err == nil {
		w.acknowledge(name, after)
		return
	}
	w.mu.Lock()
	w.mu.why[err.Error()]++
	w.mu.Unlock()
	found, ok := w.read(ctx, name)
	if !ok {
		return
	}
	if found != before && found != after {
		w.fail(fmt.Sprintf("%s holds %q; it held %q before a change to %q that ended with: %v", name, found, before, after, err))
	}
	w.acknowledge(name, found)
}

func (w *writers) read(ctx context.Context, name string) (generation string, ok bool) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, callLimit)
		o, err := w.client.Get(call, name, metav1.GetOptions{})
		cancel()
		if err == nil {
			return generationOf(o), true
		}
		if apierrors.IsNotFound(err) {
			return "", true
		}
	}
	return "", false
}

func generationOf(o *unstructured.Unstructured) string {
	g, _, _ := unstructured.NestedString(o.Object, "data", "generation")
	return g
}

func (w *writers) held(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.holds[name]
}

func (w *writers) acknowledge(name, generation string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if generation == "" {
		delete(w.mu.holds, name)
	} else {
		w.mu.holds[name] = generation
	}
	w.acked.Add(1)
}

func (w *writers) fail(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.wrong = append(w.mu.wrong, what)
}
