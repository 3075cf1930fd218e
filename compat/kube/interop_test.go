package kube

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/server/porttest"
)

// different says where what the layer shows of an object that a kube-apiserver wrote, or
// the other way round, may differ from what the kube-apiserver shows.
var different = map[string]string{
	"PersistentVolumeClaim.status.phase": "a kube-apiserver fills in Pending when it reads",
	"CSINode.status":                     "the table is of 1.37, which writes this field even if it is empty",
	"FlowSchema.spec.matchingPrecedence": "a kube-apiserver reads 0 as 1000",
	"DaemonSet.metadata.annotations":     "an annotation for clients of versions that are gone",
}

// defaults is what a kube-apiserver fills in when it reads: it stores that when it
// next writes, and then both show it.
const defaults = "defaults that a kube-apiserver fills in when it reads: "

// TestInterop: a kube-apiserver and the resource layer over one store. What either
// writes the other shows alike and goes on with, at the same resource version,
// and watches of both tell the same.
func TestInterop(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	p := startPair(ctx, t)
	all, err := LoadStubs()
	if err != nil {
		t.Fatal(err)
	}
	p.prepare(ctx, t, all)
	lines := []string{"| kind | a kube-apiserver wrote it | the layer wrote it |", "|---|---|---|"}
	for _, s := range all.Stubs {
		name := s.Resource + "." + s.Version + "." + s.Group
		t.Run(name, func(t *testing.T) {
			if !p.layer.writer.Serves(s.GroupVersionResource) {
				lines = append(lines, fmt.Sprintf("| %s | not served by the layer | |", name))
				return
			}
			o := &meeting{pair: p, stub: s, namespace: all.Namespace, at: p.upstream.writer.served[s.GroupVersionResource]}
			lines = append(lines, fmt.Sprintf("| %s | %s | %s |", name, o.between(ctx, t, p.upstream, p.layer), o.between(ctx, t, p.layer, p.upstream)))
		})
	}
	p.compareWatches(ctx, t)
	if path := os.Getenv("REPORT"); path != "" {
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// party is one of the two servers.
type party struct {
	name   string
	writer *Writer
	client dynamic.Interface

	mu   sync.Mutex
	told map[schema.GroupVersionResource][]string // by watches: what, which, at which revision
	wait sync.WaitGroup
}

type pair struct {
	upstream, layer *party
	stop            context.CancelFunc
	last            map[schema.GroupVersionResource]bool // resources that were written
}

func newParty(name string, t Target) (*party, error) {
	p := &party{name: name, told: map[schema.GroupVersionResource][]string{}}
	var err error
	if p.client, err = dynamic.NewForConfig(t.Config()); err == nil {
		p.writer, err = NewWriter(t)
	}
	return p, err
}

func startPair(ctx context.Context, t *testing.T) *pair {
	t.Helper()
	dir := t.TempDir()
	sys, err := cluster.UnderTest()
	if err != nil {
		t.Fatal(err)
	}
	certs, err := cluster.NewCerts(filepath.Join(dir, "certs"))
	if err != nil {
		t.Fatal(err)
	}
	// Each member has the layer, because its controllers are those of the one that leads.
	var layers [3]Target
	for i := range layers {
		port, err := porttest.Claim()
		if err != nil {
			t.Fatal(err)
		}
		layers[i].URL = fmt.Sprintf("http://127.0.0.1:%d", port)
	}
	store, err := cluster.Start(ctx, sys, cluster.Options{Members: len(layers), Dir: dir, NoSync: true, ArgsOf: func(i int) []string {
		return []string{"--listen-resource-urls", layers[i].URL}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	server, err := StartAPIServer(ctx, Options{Store: store, Certs: certs, Dir: filepath.Join(dir, "apiserver"), Args: everyVersion})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	p := &pair{last: map[schema.GroupVersionResource]bool{}}
	if p.upstream, err = newParty("kube-apiserver", server.Target); err == nil {
		p.layer, err = newParty("layer", layers[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// prepare makes the namespace and the definitions, waits until both serve them, and
// has both watch every resource.
func (p *pair) prepare(ctx context.Context, t *testing.T, all Stubs) {
	t.Helper()
	if _, err := p.upstream.writer.CreateAll(ctx, Stubs{Namespace: all.Namespace, Definitions: all.Definitions}); err != nil {
		t.Fatal(err)
	}
	var custom []Stub
	for _, s := range all.Stubs {
		if strings.Contains(s.Group, ".") && !strings.HasSuffix(s.Group, ".k8s.io") {
			custom = append(custom, s)
		}
	}
	if err := p.upstream.writer.Discover(ctx, all.Stubs); err != nil {
		t.Fatal(err)
	}
	if err := p.layer.writer.Discover(ctx, custom); err != nil {
		t.Fatal(err)
	}
	watching, stop := context.WithCancel(ctx)
	p.stop = stop
	t.Cleanup(func() { stop(); p.upstream.wait.Wait(); p.layer.wait.Wait() })
	for _, s := range all.Stubs {
		if !p.layer.writer.Serves(s.GroupVersionResource) {
			continue
		}
		list, err := p.upstream.client.Resource(s.GroupVersionResource).List(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, side := range []*party{p.upstream, p.layer} {
			if err := side.follow(watching, s.GroupVersionResource, list.GetResourceVersion()); err != nil {
				t.Fatalf("%s: watch %s: %v", side.name, s.GroupVersionResource, err)
			}
		}
	}
}

// follow keeps what a watch tells.
func (s *party) follow(ctx context.Context, gvr schema.GroupVersionResource, from string) error {
	w, err := s.client.Resource(gvr).Watch(ctx, metav1.ListOptions{ResourceVersion: from})
	if err != nil {
		return err
	}
	s.wait.Go(func() {
		defer w.Stop()
		for {
			var ev watch.Event
			var ok bool
			select {
			case ev, ok = <-w.ResultChan():
			case <-ctx.Done():
				return
			}
			if !ok {
				return
			}
			text := fmt.Sprint(ev.Type)
			if o, isObject := ev.Object.(*unstructured.Unstructured); isObject {
				text = fmt.Sprintf("%s %s/%s at %s", ev.Type, o.GetNamespace(), o.GetName(), o.GetResourceVersion())
			}
			s.mu.Lock()
			s.told[gvr] = append(s.told[gvr], text)
			s.mu.Unlock()
		}
	})
	return nil
}

func (s *party) heard(gvr schema.GroupVersionResource) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.told[gvr])
}

// compareWatches waits until the watches of both sides have told the same.
func (p *pair) compareWatches(ctx context.Context, t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	events := 0
	for gvr := range p.last {
		for !slices.Equal(p.upstream.heard(gvr), p.layer.heard(gvr)) && ctx.Err() == nil {
			time.Sleep(pollEvery)
		}
		a, b := p.upstream.heard(gvr), p.layer.heard(gvr)
		events += len(a)
		if !slices.Equal(a, b) {
			t.Errorf("watches of %s: kube-apiserver told %q, the layer %q", gvr, a, b)
		}
		if len(a) == 0 {
			t.Errorf("watches of %s told nothing", gvr)
		}
	}
	t.Logf("watches of %d resources told %d events alike", len(p.last), events)
}

// meeting is one object on both sides.
type meeting struct {
	*pair
	stub      Stub
	namespace string
	at        metav1.APIResource
}

func (m *meeting) on(s *party) dynamic.ResourceInterface {
	if m.at.Namespaced {
		return s.client.Resource(m.stub.GroupVersionResource).Namespace(m.namespace)
	}
	return s.client.Resource(m.stub.GroupVersionResource)
}

// between has one side make an object and the other change it, the first change it
// again and the other delete it. After each step both must show the same.
func (m *meeting) between(ctx context.Context, t *testing.T, maker, other *party) string {
	t.Helper()
	m.last[m.stub.GroupVersionResource] = true
	name := m.stub.Object.GetName()
	if err := maker.writer.Create(ctx, m.stub.GroupVersionResource, m.stub.Object.DeepCopy(), m.namespace); err != nil {
		t.Errorf("%s creates: %v", maker.name, err)
		return "refused by " + maker.name
	}
	var notes []string
	steps := []struct {
		by   *party
		what string
	}{{nil, "made"}, {other, "changed"}, {maker, "changed again"}}
	for _, step := range steps {
		if step.by != nil {
			patch := fmt.Appendf(nil, `{"metadata":{"labels":{"by-%s":%q}}}`, step.by.name, step.what[:4])
			if _, err := m.on(step.by).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				t.Errorf("%s by %s: %s changes it: %v", m.at.Kind, maker.name, step.by.name, err)
			}
		}
		for _, d := range m.differ(ctx, t, name) {
			why := different[m.at.Kind+d.Path]
			if why == "" && step.by == nil && maker == m.layer && d.Left == "" {
				why = defaults + d.Path[1:]
			}
			if why == "" {
				t.Errorf("%s by %s, %s: the layer and kube-apiserver show %s%v", m.at.Kind, maker.name, step.what, m.at.Kind, d)
				why = "**" + d.Path + "**"
			}
			if !slices.Contains(notes, why) {
				notes = append(notes, why)
			}
		}
	}
	m.remove(ctx, t, other, name)
	if len(notes) == 0 {
		return "alike"
	}
	first := true
	for i, n := range notes { // say it once
		if rest, ok := strings.CutPrefix(n, defaults); ok && !first {
			notes[i] = rest
		} else if ok {
			first = false
		}
	}
	return "alike but for " + strings.Join(notes, ", ")
}

// differ compares what both sides show, at the same resource version.
func (m *meeting) differ(ctx context.Context, t *testing.T, name string) []Difference {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		a, err := m.on(m.upstream).Get(ctx, name, metav1.GetOptions{})
		var b *unstructured.Unstructured
		if err == nil {
			b, err = m.on(m.layer).Get(ctx, name, metav1.GetOptions{})
		}
		if err == nil && a.GetResourceVersion() == b.GetResourceVersion() {
			return Differences(b.Object, a.Object)
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("kube-apiserver shows revision %s, the layer %s", a.GetResourceVersion(), b.GetResourceVersion())
			}
			t.Errorf("%s: %v", name, err)
			return nil
		case <-time.After(pollEvery):
		}
	}
}

// remove has one side delete the object, and waits until the other has none.
func (m *meeting) remove(ctx context.Context, t *testing.T, by *party, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// Nobody runs who would do what these finalizers wait for.
	if m.stub.Resource != "customresourcedefinitions" {
		if _, err := m.on(by).Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
			t.Errorf("%s: %v", by.name, err)
		}
	}
	now := int64(0)
	if err := m.on(by).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("%s deletes: %v", by.name, err)
		return
	}
	for _, side := range []*party{m.upstream, m.layer} {
		for {
			_, err := m.on(side).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				break
			}
			if ctx.Err() != nil {
				t.Errorf("%s still has it: %v", side.name, err)
				break
			}
			time.Sleep(pollEvery)
		}
	}
}
