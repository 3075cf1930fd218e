package kube

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
)

const (
	failovers      = 3
	writerCount    = 8
	changesBetween = 200 // before a leader is killed, and after
	settleLimit    = 2 * time.Minute
)

// TestFailover: leaders of the store are killed while clients write through a
// kube-apiserver and an informer watches. Nothing that was acknowledged is
// missing, no object went back in time for the informer, and at rest it holds
// what a list gives. KUBE_FEATURE_WatchListClient=false has the informer list
// in pages.
func TestFailover(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	w := start(ctx, t)
	client, err := dynamic.NewForConfig(w.server.Config())
	if err != nil {
		t.Fatal(err)
	}
	const namespace = "failover"
	ns := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": namespace}, "apiVersion": "v1", "kind": "Namespace"}}
	if _, err := client.Resource(namespaces).Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	maps := client.Resource(configMaps).Namespace(namespace)
	seen := &orderCheck{last: map[string]uint64{}}
	informer := dynamicinformer.NewFilteredDynamicInformer(client, configMaps, namespace, 0, cache.Indexers{}, nil).Informer()
	if _, err := informer.AddEventHandler(seen); err != nil {
		t.Fatal(err)
	}
	var background sync.WaitGroup
	defer background.Wait()
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	background.Go(func() { informer.RunWithContext(watching) })

	ws := newWriters(maps)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for id := range writerCount {
		busy.Go(func() { ws.write(ctx, id, stop) })
	}
	var shell kubectlLoop
	busy.Go(func() { shell.run(ctx, w.kubectl, namespace, stop) })
	for range failovers {
		w.killLeader(ctx, t, ws)
	}
	close(stop)
	busy.Wait()
	t.Logf("%d changes acknowledged; outcomes read back: %v; %d kubectl commands, %d failed", ws.acked.Load(), ws.mu.why, shell.done, len(shell.failed))
	for _, text := range shell.failed {
		t.Logf("kubectl: %s", text)
	}
	atRest(ctx, t, maps, informer, ws)
	seen.report(t)
}

// killLeader kills the leader between two amounts of work and starts it again.
func (w *world) killLeader(ctx context.Context, t *testing.T, ws *writers) {
	t.Helper()
	await(ctx, t, ws, changesBetween)
	leader, err := w.store.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	leader.Kill()
	await(ctx, t, ws, 1)
	t.Logf("%s was killed; the next change was acknowledged %v later", leader.Name, time.Since(killed).Round(time.Millisecond))
	await(ctx, t, ws, changesBetween)
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// await waits for n more changes.
func await(ctx context.Context, t *testing.T, ws *writers, n int64) {
	t.Helper()
	for target := ws.acked.Load() + n; ws.acked.Load() < target; {
		select {
		case <-ctx.Done():
			t.Fatalf("%d changes short of %d: %v", target-ws.acked.Load(), n, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// atRest compares a list with what was acknowledged, and the informer with it.
func atRest(ctx context.Context, t *testing.T, maps dynamic.ResourceInterface, informer cache.SharedIndexInformer, ws *writers) {
	t.Helper()
	list, err := maps.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]*unstructured.Unstructured{}
	for i := range list.Items {
		o := &list.Items[i]
		listed[o.GetName()] = o
		if held := ws.mu.holds[o.GetName()]; strings.HasPrefix(o.GetName(), "w") && held != generationOf(o) {
			t.Errorf("%s holds %q, acknowledged was %q", o.GetName(), generationOf(o), held)
		}
	}
	for name, generation := range ws.mu.holds {
		if listed[name] == nil {
			t.Errorf("%s is missing, acknowledged was %q", name, generation)
		}
	}
	for _, text := range ws.mu.wrong {
		t.Error(text)
	}
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for {
		differ := informerDiffers(informer, listed)
		if differ == "" {
			t.Logf("the informer holds the %d objects of the list", len(listed))
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the informer does not come to rest: %s", differ)
		case <-time.After(pollEvery):
		}
	}
}

func informerDiffers(informer cache.SharedIndexInformer, listed map[string]*unstructured.Unstructured) string {
	held := informer.GetStore().List()
	for _, v := range held {
		o := v.(*unstructured.Unstructured)
		l := listed[o.GetName()]
		if l == nil {
			return o.GetName() + " is not in the list"
		}
		if diffs := Differences(o.Object, l.Object); len(diffs) > 0 {
			return fmt.Sprintf("%s differs from the list: %v", o.GetName(), diffs)
		}
	}
	if len(held) != len(listed) {
		return fmt.Sprintf("it holds %d objects, the list has %d", len(held), len(listed))
	}
	return ""
}

// orderCheck is an informer's handler: for each name, revisions only rise.
type orderCheck struct {
	mu    sync.Mutex
	last  map[string]uint64
	wrong []string
	count int
}

func (c *orderCheck) OnAdd(o any, _ bool) { c.see(o) }
func (c *orderCheck) OnUpdate(_, o any)   { c.see(o) }
func (c *orderCheck) OnDelete(o any) {
	if _, unknown := o.(cache.DeletedFinalStateUnknown); !unknown {
		c.see(o)
	}
}

func (c *orderCheck) see(v any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	o := v.(*unstructured.Unstructured)
	rev, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil || rev < c.last[o.GetName()] {
		c.wrong = append(c.wrong, fmt.Sprintf("%s came with revision %s after %d", o.GetName(), o.GetResourceVersion(), c.last[o.GetName()]))
	}
	c.last[o.GetName()] = rev
}

func (c *orderCheck) report(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Logf("the informer delivered %d events", c.count)
	for _, text := range c.wrong {
		t.Error(text)
	}
}

// kubectlLoop runs kubectl while leaders are killed.
type kubectlLoop struct {
	done   int
	failed []string
}

func (l *kubectlLoop) run(ctx context.Context, k *Kubectl, namespace string, stop <-chan struct{}) {
	manifest := func(n int) string {
		return fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubectl"}, "data": {"n": "%d"}}`, n)
	}
	for n := 0; ; n++ {
		for _, args := range [][]string{{"apply", "-f", "-"}, {"get", "configmap", "kubectl", "-o", "jsonpath={.data.n}"}} {
			select {
			case <-stop:
				return
			default:
			}
			p, err := k.Run(ctx, manifest(n), append(args, "-n", namespace)...)
			l.done++
			if err != nil || p.Code != 0 {
				l.failed = append(l.failed, fmt.Sprintf("%s: exit code %d, %v: %s", args[0], p.Code, err, p.Stderr))
			} else if args[0] == "get" && p.Stdout != strconv.Itoa(n) && len(l.failed) == 0 {
				l.failed = append(l.failed, fmt.Sprintf("get printed %q after apply of %d", p.Stdout, n))
			}
		}
	}
}
