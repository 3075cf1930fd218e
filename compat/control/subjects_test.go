package control

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// subject is an informer under test.
type subject struct {
	wire     *Wire
	informer cache.SharedIndexInformer
	list     func(context.Context, metav1.ListOptions) (runtime.Object, error)
	seen     *sightings
	start    func(stop <-chan struct{})
	shutdown func()
}

// maker makes an informer and the list that it should equal.
type maker struct {
	name string
	make func(*rest.Config, *subject) error
}

// makers are all sorts of informers: of everything, and of what some labels or fields
// select.
var makers = []maker{
	{"typed configmaps", typedMaps("")},
	{"typed configmaps, tier=front", typedMaps("tier=front")},
	{"typed pods on node-0", typedPods("spec.nodeName=node-0")},
	{"dynamic widgets", dynamicWidgets("")},
	{"dynamic widgets, tier in (back)", dynamicWidgets("tier in (back)")},
	{"metadata of configmaps", metadataOfMaps("")},
	{"metadata of pods, !front", metadataOfPods("tier!=front")},
}

func typedMaps(selector string) func(*rest.Config, *subject) error {
	return func(cfg *rest.Config, s *subject) error {
		client, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			return err
		}
		select1 := func(o *metav1.ListOptions) { o.LabelSelector = selector }
		f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(select1))
		s.informer, s.start, s.shutdown = f.Core().V1().ConfigMaps().Informer(), f.Start, f.Shutdown
		s.list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			select1(&o)
			return client.CoreV1().ConfigMaps("").List(ctx, o)
		}
		return nil
	}
}

func typedPods(fields string) func(*rest.Config, *subject) error {
	return func(cfg *rest.Config, s *subject) error {
		client, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			return err
		}
		f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(Namespace),
			informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.FieldSelector = fields }))
		s.informer, s.start, s.shutdown = f.Core().V1().Pods().Informer(), f.Start, f.Shutdown
		s.list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields
			return client.CoreV1().Pods(Namespace).List(ctx, o)
		}
		return nil
	}
}

func dynamicWidgets(selector string) func(*rest.Config, *subject) error {
	return func(cfg *rest.Config, s *subject) error {
		client, err := dynamic.NewForConfig(cfg)
		if err != nil {
			return err
		}
		select1 := func(o *metav1.ListOptions) { o.LabelSelector = selector }
		f := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, "", select1)
		s.informer, s.start, s.shutdown = f.ForResource(widgetResource).Informer(), f.Start, f.Shutdown
		s.list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			select1(&o)
			return client.Resource(widgetResource).List(ctx, o)
		}
		return nil
	}
}

func metadataOfMaps(selector string) func(*rest.Config, *subject) error {
	return func(cfg *rest.Config, s *subject) error { return s.ofMetadata(cfg, "configmaps", selector) }
}

func metadataOfPods(selector string) func(*rest.Config, *subject) error {
	return func(cfg *rest.Config, s *subject) error { return s.ofMetadata(cfg, "pods", selector) }
}

func (s *subject) ofMetadata(cfg *rest.Config, resource, selector string) error {
	client, err := metadata.NewForConfig(cfg)
	if err != nil {
		return err
	}
	gvr := configMaps.GroupVersion().WithResource(resource)
	select1 := func(o *metav1.ListOptions) { o.LabelSelector = selector }
	f := metadatainformer.NewFilteredSharedInformerFactory(client, 0, Namespace, select1)
	s.informer, s.start, s.shutdown = f.ForResource(gvr).Informer(), f.Start, f.Shutdown
	s.list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		select1(&o)
		return client.Resource(gvr).Namespace(Namespace).List(ctx, o)
	}
	return nil
}

// newSubject makes an informer whose client goes to a URL.
func newSubject(w *World, m maker, url string, acked func() int64) (*subject, error) {
	s := &subject{wire: NewWire(m.name, acked), seen: newSightings()}
	cfg := w.ConfigOf(url)
	cfg.Wrap(s.wire.Wrap)
	if err := m.make(cfg, s); err != nil {
		return nil, err
	}
	s.seen.synced = s.informer.LastSyncResourceVersion
	_, err := s.informer.AddEventHandler(s.seen)
	return s, err
}

// differs compares the informer's store with a list's objects; empty: equal.
func (s *subject) differs(list runtime.Object) (string, error) {
	items, err := meta.ExtractList(list)
	if err != nil {
		return "", err
	}
	listed := map[string]string{}
	for _, o := range items {
		key, text, err := textOf(o)
		if err != nil {
			return "", err
		}
		listed[key] = text
	}
	held := s.informer.GetStore().List()
	for _, v := range held {
		key, text, err := textOf(v.(runtime.Object))
		if err != nil {
			return "", err
		}
		if l, ok := listed[key]; !ok || l != text {
			return fmt.Sprintf("it holds %s, the list has %s", text, l), nil
		}
	}
	if len(held) != len(listed) {
		return fmt.Sprintf("it holds %d objects, the list has %d", len(held), len(listed)), nil
	}
	return "", nil
}

// textOf is an object as text, and what it is called.
func textOf(o runtime.Object) (key, text string, err error) {
	if key, err = cache.MetaNamespaceKeyFunc(o); err != nil {
		return "", "", err
	}
	b, err := json.Marshal(o)
	if err != nil {
		return "", "", err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return "", "", err
	}
	// Decoders of lists and of watches set these for some kinds and not for others.
	delete(m, "kind")
	delete(m, "apiVersion")
	b, err = json.Marshal(m)
	return key, string(b), err
}

// sightings is a handler of an informer: of each object, revisions rise.
type sightings struct {
	synced func() string

	mu struct {
		sync.Mutex
		newest   map[string]int64 // by object
		handed   map[string]int   // object and revision: how often it came, other than deleted
		position int64            // of the informer
		repeated int
		wrong    []string
	}
}

func newSightings() *sightings {
	s := &sightings{}
	s.mu.newest, s.mu.handed = map[string]int64{}, map[string]int{}
	return s
}

func (s *sightings) OnAdd(o any, _ bool) { s.see(o, false) }
func (s *sightings) OnUpdate(_, o any)   { s.see(o, false) }
func (s *sightings) OnDelete(o any) {
	// An object whose end was missed comes as it was last known.
	if _, unknown := o.(cache.DeletedFinalStateUnknown); !unknown {
		s.see(o, true)
	}
}

func (s *sightings) see(v any, deleted bool) {
	m, err := meta.Accessor(v)
	position := number(s.synced())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.mu.wrong = append(s.mu.wrong, err.Error())
		return
	}
	key, rev := m.GetNamespace()+"/"+m.GetName(), number(m.GetResourceVersion())
	last := s.mu.newest[key]
	switch {
	case rev < last:
		s.mu.wrong = append(s.mu.wrong, fmt.Sprintf("%s came with revision %d after %d", key, rev, last))
	case rev == last && !deleted:
		s.mu.repeated++
	}
	if position < s.mu.position {
		s.mu.wrong = append(s.mu.wrong, fmt.Sprintf("the informer went from %d back to %d", s.mu.position, position))
	}
	s.mu.position = position
	s.mu.newest[key] = rev
	if !deleted {
		s.mu.handed[fmt.Sprintf("%s@%d", key, rev)]++
	}
}

// judge compares what came with what the watches told: each change was handed on,
// and none twice unless the informer had to begin again.
func (s *sightings) judge(w *Wire, t *Tally) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, text := range s.mu.wrong {
		t.wrong("%s: %s", w.name, text)
	}
	streams, lists := w.recorded()
	begun := 0
	for _, l := range lists {
		// The test's own lists and those of the detector name no limit, or an exact version.
		informers := l.query.Has("limit") || l.query.Has("resourceVersion")
		if informers && l.query.Get("resourceVersionMatch") == "" && l.query.Get("continue") == "" {
			begun++
		}
	}
	for _, st := range streams {
		begun += s.judgeStream(w, st, t)
	}
	if begun <= 1 && s.mu.repeated > 0 {
		t.wrong("%s: %d changes came twice although it began once", w.name, s.mu.repeated)
	}
	t.Relists += max(begun-1, 0)
	t.Repeated += s.mu.repeated
}

// judgeStream returns 1 for a watch that brought the state itself.
func (s *sightings) judgeStream(w *Wire, st *stream, t *Tally) (begun int) {
	whole := st.query.Get("sendInitialEvents") == ""
	for _, e := range st.events {
		if e.initialEnd() {
			whole, begun = true, 1
		}
	}
	for _, e := range st.events {
		at := fmt.Sprintf("%s/%s@%d", e.Object.Metadata.Namespace, e.Object.Metadata.Name, e.Object.rev())
		if whole && (e.Type == "ADDED" || e.Type == "MODIFIED") && s.mu.handed[at] == 0 {
			t.wrong("%s: %s of %s was told and not handed on", w.name, e.Type, at)
		}
	}
	return begun
}
