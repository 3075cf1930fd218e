package control

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// callLimit bounds a call whose server does not answer.
const callLimit = 15 * time.Second

const (
	tierLabel         = "tier"
	contentAnnotation = "demo.io/content"
)

// tiers are the values of a label by which some informers select.
var tiers = []string{"front", "back"}

// writing is what a writer wants an object to be.
type writing struct{ name, tier, content string }

func (w writing) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: w.name, Labels: map[string]string{tierLabel: w.tier}, Annotations: map[string]string{contentAnnotation: w.content}}
}

func (w writing) patch() []byte {
	b, _ := json.Marshal(map[string]any{"metadata": map[string]any{ // strings only
		"labels": map[string]any{tierLabel: w.tier}, "annotations": map[string]any{contentAnnotation: w.content},
	}})
	return b
}

// written is a kind of objects that writers change. create and replace give what
// the server answered.
type written struct {
	create  func(context.Context, writing) (runtime.Object, error)
	replace func(context.Context, writing) (runtime.Object, error)
	read    func(context.Context, string) (runtime.Object, error)
	remove  func(context.Context, string) error
}

// writtenKinds are ConfigMaps and Pods by the typed client, whose bodies are
// protobuf, and Widgets by the dynamic one.
func writtenKinds(cfg *rest.Config) ([]written, error) {
	typed, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	untyped, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	maps, running, widgets := typed.CoreV1().ConfigMaps(Namespace), typed.CoreV1().Pods(Namespace), untyped.Resource(widgetResource).Namespace(Namespace)
	now := int64(0)
	return []written{
		{
			create: func(ctx context.Context, w writing) (runtime.Object, error) {
				return maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: w.meta()}, metav1.CreateOptions{})
			},
			replace: func(ctx context.Context, w writing) (runtime.Object, error) {
				return maps.Update(ctx, &corev1.ConfigMap{ObjectMeta: w.meta()}, metav1.UpdateOptions{})
			},
			read: func(ctx context.Context, name string) (runtime.Object, error) {
				return maps.Get(ctx, name, metav1.GetOptions{})
			},
			remove: func(ctx context.Context, name string) error { return maps.Delete(ctx, name, metav1.DeleteOptions{}) },
		}, {
			create: func(ctx context.Context, w writing) (runtime.Object, error) {
				return running.Create(ctx, &corev1.Pod{ObjectMeta: w.meta(), Spec: corev1.PodSpec{
					NodeName: nodeOf(w.name), Containers: []corev1.Container{{Name: "main", Image: "demo.io/pod"}},
				}}, metav1.CreateOptions{})
			},
			replace: func(ctx context.Context, w writing) (runtime.Object, error) {
				return running.Patch(ctx, w.name, types.StrategicMergePatchType, w.patch(), metav1.PatchOptions{})
			},
			read: func(ctx context.Context, name string) (runtime.Object, error) {
				return running.Get(ctx, name, metav1.GetOptions{})
			},
			remove: func(ctx context.Context, name string) error {
				return running.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
			},
		}, {
			create: func(ctx context.Context, w writing) (runtime.Object, error) {
				o := NewWidget(Namespace, w.name, 1)
				o.SetLabels(w.meta().Labels)
				o.SetAnnotations(w.meta().Annotations)
				return widgets.Create(ctx, o, metav1.CreateOptions{})
			},
			replace: func(ctx context.Context, w writing) (runtime.Object, error) {
				return widgets.Patch(ctx, w.name, types.MergePatchType, w.patch(), metav1.PatchOptions{})
			},
			read: func(ctx context.Context, name string) (runtime.Object, error) {
				return widgets.Get(ctx, name, metav1.GetOptions{})
			},
			remove: func(ctx context.Context, name string) error { return widgets.Delete(ctx, name, metav1.DeleteOptions{}) },
		},
	}, nil
}

// nodes are where pods run; some informers select by them.
var nodes = []string{"node-0", "node-1"}

func nodeOf(pod string) string { return nodes[int(pod[len(pod)-1])%len(nodes)] }

// writers create, change, relabel and delete objects, each its own names, and know
// of each what was acknowledged last.
type writers struct {
	count  int          // writers
	names  int          // of each writer, in each kind
	kinds  [][]written  // through each way to the members
	acked  atomic.Int64 // changes
	newest atomic.Int64 // revision acknowledged

	mu struct {
		sync.Mutex
		holds map[string]string // kind and name to content; absent: deleted or never made
		wrong []string
		why   map[string]int // what calls in doubt ended with
	}
}

// newWriters makes writers that share some ways to the members.
func newWriters(ways []*rest.Config, count, names int) (*writers, error) {
	w := &writers{count: count, names: names}
	w.mu.holds, w.mu.why = map[string]string{}, map[string]int{}
	for _, cfg := range ways {
		kinds, err := writtenKinds(cfg)
		if err != nil {
			return nil, err
		}
		w.kinds = append(w.kinds, kinds)
	}
	return w, nil
}

// fill makes every object.
func (w *writers) fill(ctx context.Context) {
	w.each(func(id int) {
		for kind := range w.kinds[0] {
			for n := range w.names {
				w.change(ctx, id, kind, writing{fmt.Sprintf("w%d-%d", id, n), tiers[n%2], fmt.Sprintf("%d-first", id)}, false)
			}
		}
	})
}

// run writes until stop is closed.
func (w *writers) run(ctx context.Context, stop <-chan struct{}) {
	w.each(func(id int) {
		chance := rand.New(rand.NewPCG(1, uint64(id)))
		for n := 0; ctx.Err() == nil; n++ {
			select {
			case <-stop:
				return
			default:
			}
			want := writing{fmt.Sprintf("w%d-%d", id, chance.IntN(w.names)), tiers[chance.IntN(2)], fmt.Sprintf("%d-%d", id, n)}
			w.change(ctx, id, chance.IntN(len(w.kinds[0])), want, chance.IntN(5) == 0)
		}
	})
}

func (w *writers) each(do func(id int)) {
	var all sync.WaitGroup
	for id := range w.count {
		all.Go(func() { do(id) })
	}
	all.Wait()
}

// change makes one change. An error leaves it open whether it was made: then the
// object is read until there is an answer, which must be what it was or what it
// should become.
func (w *writers) change(ctx context.Context, id, kind int, want writing, remove bool) {
	k, at := w.kinds[id%len(w.kinds)][kind], fmt.Sprintf("%d/%s", kind, want.name)
	before, after := w.held(at), want.content
	call, cancel := context.WithTimeout(ctx, callLimit)
	var o runtime.Object
	var err error
	switch {
	case before == "":
		o, err = k.create(call, want)
	case remove:
		after = ""
		err = k.remove(call, want.name)
	default:
		o, err = k.replace(call, want)
	}
	cancel()
	if err == nil {
		w.acknowledge(at, after, o)
		return
	}
	w.mu.Lock()
	w.mu.why[reasonOf(err)]++
	w.mu.Unlock()
	found, o, ok := w.read(ctx, k, want.name)
	if !ok {
		return
	}
	if found != before && found != after {
		w.fail(fmt.Sprintf("%s holds %q; it held %q before a change to %q that ended with: %v", at, found, before, after, err))
	}
	w.acknowledge(at, found, o)
}

func (w *writers) read(ctx context.Context, k written, name string) (content string, o runtime.Object, ok bool) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, callLimit)
		o, err := k.read(call, name)
		cancel()
		switch {
		case err == nil:
			return contentOf(o), o, true
		case apierrors.IsNotFound(err):
			return "", nil, true
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollEvery):
		}
	}
	return "", nil, false
}

func contentOf(o runtime.Object) string {
	m, err := meta.Accessor(o)
	if err != nil {
		return ""
	}
	return m.GetAnnotations()[contentAnnotation]
}

func (w *writers) held(at string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.holds[at]
}

// acknowledge notes what a server answered; o may be nil.
func (w *writers) acknowledge(at, content string, o runtime.Object) {
	w.mu.Lock()
	if content == "" {
		delete(w.mu.holds, at)
	} else {
		w.mu.holds[at] = content
	}
	w.mu.Unlock()
	if o != nil {
		if m, err := meta.Accessor(o); err == nil {
			raise(&w.newest, number(m.GetResourceVersion()))
		}
	}
	w.acked.Add(1)
}

func raise(to *atomic.Int64, n int64) {
	for {
		old := to.Load()
		if old >= n || to.CompareAndSwap(old, n) {
			return
		}
	}
}

func (w *writers) fail(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.wrong = append(w.mu.wrong, what)
}

// await waits for n more changes.
func (w *writers) await(ctx context.Context, n int) error {
	for target := w.acked.Load() + int64(n); w.acked.Load() < target; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d changes short of %d: %w", target-w.acked.Load(), n, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// reasonOf is what errors have in common.
func reasonOf(err error) string {
	if r := apierrors.ReasonForError(err); r != metav1.StatusReasonUnknown {
		return string(r)
	}
	return lastPart(err.Error())
}
