package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/keelson-io/keelson/compat/cluster"
)

// How the managers elect: a lease as short as may be renewed while a store
// elects a leader, so that a successor is there within takeoverLimit.
const (
	leaseLasts    = 7 * time.Second
	renewWithin   = 5 * time.Second
	leaseRetry    = time.Second
	takeoverLimit = 15 * time.Second
)

const widgetCount = 12

// TestManagers: two managers of controller-runtime hold a Lease in turn while the one
// that holds it, the store's leader and the member that serves are killed. Never
// do two hold it, no write comes from one that does not, another takes over in
// time, and in the end each Widget has its Deployment, and those that were deleted
// have left what their finalizer leaves, and nothing else.
func TestManagers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Minute)
	defer cancel()
	dir := t.TempDir()
	w, err := StartWorld(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r := &managerRun{World: w, t: t, dir: dir}
	r.begin(ctx)
	rounds := 2
	if os.Getenv("FULL") == "" {
		rounds = 1
	}
	for round := range rounds {
		r.replicas = int64(2 * (round + 1))
		r.settle(ctx)
		r.killStore(ctx, round)
		r.replicas++
		r.settle(ctx)
		r.killHolder(ctx)
		r.replicas++
		r.settle(ctx)
	}
	r.deleteHalf(ctx)
	r.end(ctx)
}

type managerRun struct {
	*World
	t         *testing.T
	dir       string
	front     *Front
	managers  []*manager
	widgets   dynamic.ResourceInterface
	client    dynamic.Interface
	replicas  int64
	takeovers []time.Duration
	kills     int
}

// manager is one process of cmd/manager after another, each with a name of its own.
type manager struct {
	cluster.Process
	lives []life
}

func (r *managerRun) begin(ctx context.Context) {
	r.t.Helper()
	binary, err := cluster.BinaryPath("manager")
	if err != nil {
		r.t.Fatalf("%v; this one comes from `make -C compat manager-bin`", err)
	}
	var url string
	if r.front, url, err = r.Front(1, true); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.front.Close)
	if r.client, err = dynamic.NewForConfig(r.ConfigOf(url)); err != nil {
		r.t.Fatal(err)
	}
	r.widgets = r.client.Resource(widgetResource).Namespace(Namespace)
	for i := range widgetCount {
		if err := r.create(ctx, widgetResource, Namespace, NewWidget(Namespace, widgetName(i), 1)); err != nil {
			r.t.Fatal(err)
		}
	}
	for i := range 2 {
		m := &manager{Process: cluster.Process{Name: fmt.Sprint("manager", i), Binary: binary, Dir: filepath.Join(r.dir, fmt.Sprint("manager", i))}}
		if err := os.MkdirAll(m.Dir, 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := r.Kubeconfig(filepath.Join(m.Dir, "kubeconfig"), url); err != nil {
			r.t.Fatal(err)
		}
		r.managers = append(r.managers, m)
		r.t.Cleanup(m.Kill)
		r.start(m)
	}
}

func widgetName(i int) string { return fmt.Sprintf("widget-%d", i) }

func (r *managerRun) start(m *manager) {
	r.t.Helper()
	identity := fmt.Sprintf("%s-life%d", m.Name, len(m.lives))
	m.Args = []string{
		"-kubeconfig", filepath.Join(m.Dir, "kubeconfig"), "-identity", identity,
		"-lease", leaseLasts.String(), "-renew", renewWithin.String(), "-retry", leaseRetry.String(),
	}
	m.lives = append(m.lives, life{identity: identity})
	if err := m.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// revive starts managers again that ended because they lost the lease, as a kubelet
// would.
func (r *managerRun) revive() {
	for _, m := range r.managers {
		if m.PID() == 0 {
			r.start(m)
		}
	}
}

// settle asks for a number of replicas and waits until all is as it should be.
func (r *managerRun) settle(ctx context.Context) {
	r.t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, r.replicas)
	for i := range widgetCount {
		if err := Until(ctx, func() error {
			_, err := r.widgets.Patch(ctx, widgetName(i), types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		}); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := Until(ctx, func() error { r.revive(); return r.settled(ctx, widgetCount) }); err != nil {
		r.t.Fatal(err)
	}
}

// settled compares the Deployments and the status of the first n Widgets with their
// specs.
func (r *managerRun) settled(ctx context.Context, n int) error {
	for i := range n {
		o, err := r.widgets.Get(ctx, widgetName(i), metav1.GetOptions{})
		if err != nil {
			return err
		}
		d, err := r.client.Resource(deployments).Namespace(Namespace).Get(ctx, widgetName(i), metav1.GetOptions{})
		if err != nil {
			return err
		}
		made, _, _ := unstructured.NestedInt64(d.Object, "spec", "replicas")
		observed, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
		if made != r.replicas || observed != o.GetGeneration() {
			return fmt.Errorf("%s: %d replicas, want %d; generation %d, observed %d", o.GetName(), made, r.replicas, o.GetGeneration(), observed)
		}
	}
	return nil
}

// killStore kills the store's leader, and every other time the member that serves the managers.
func (r *managerRun) killStore(ctx context.Context, round int) {
	r.t.Helper()
	i := r.front.Serving()
	if round%2 == 0 {
		var err error
		if i, err = r.Leader(ctx); err != nil {
			r.t.Fatal(err)
		}
	}
	r.Kill(i)
	r.kills++
	r.replicas++
	r.settle(ctx)
	if err := r.Restart(ctx, i); err != nil {
		r.t.Fatal(err)
	}
}

// holder is the manager that says it leads and runs.
func (r *managerRun) holder() *manager {
	for _, m := range r.managers {
		if m.PID() == 0 {
			continue
		}
		leads := false
		for _, s := range r.said(m)[len(m.lives)-1] {
			leads = s.What == SaidLeads || leads && s.What != SaidYields
		}
		if leads {
			return m
		}
	}
	return nil
}

// killHolder kills the manager that leads and waits for another.
func (r *managerRun) killHolder(ctx context.Context) {
	r.t.Helper()
	var old *manager
	await := func(what string, cond func() bool) {
		if err := Until(ctx, func() error {
			r.revive()
			if !cond() {
				return fmt.Errorf("not in time: %s", what)
			}
			return nil
		}); err != nil {
			r.t.Fatal(err)
		}
	}
	await("a manager leads", func() bool { old = r.holder(); return old != nil })
	at := time.Now()
	old.Kill()
	old.lives[len(old.lives)-1].killed = time.Now()
	r.kills++
	await("another manager leads", func() bool { m := r.holder(); return m != nil })
	took := time.Since(at)
	r.takeovers = append(r.takeovers, took)
	r.t.Logf("%s was killed; another led %v later", old.Name, took.Round(10*time.Millisecond))
	if took > takeoverLimit {
		r.t.Errorf("a manager took over after %v, the limit is %v", took, takeoverLimit)
	}
}

// said is what a manager's processes said, each life's apart. The log of a process
// that was killed may end in the middle of a line.
func (r *managerRun) said(m *manager) [][]Said {
	r.t.Helper()
	data, err := os.ReadFile(m.LogPath())
	if err != nil {
		r.t.Fatal(err)
	}
	lives := make([][]Said, len(m.lives))
	at := -1
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		line := lines.Text()
		if i := strings.Index(line, `{"at":`); i >= 0 {
			line = line[i:]
		}
		var s Said
		if json.Unmarshal([]byte(line), &s) != nil || s.What == "" {
			continue
		}
		if s.What == SaidReady {
			at = slices.IndexFunc(m.lives, func(l life) bool { return l.identity == s.Object })
		}
		if at >= 0 {
			lives[at] = append(lives[at], s)
		}
	}
	return lives
}

// deleteHalf deletes every second Widget and waits until its finalizer has run
// and what it owned is collected.
func (r *managerRun) deleteHalf(ctx context.Context) {
	r.t.Helper()
	for i := 1; i < widgetCount; i += 2 {
		if err := Until(ctx, func() error {
			err := r.widgets.Delete(ctx, widgetName(i), metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}); err != nil {
			r.t.Fatal(err)
		}
	}
	gone := func(resource dynamic.ResourceInterface, name string) error {
		_, err := resource.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("%s is still there: %v", name, err)
	}
	for i := 1; i < widgetCount; i += 2 {
		name := widgetName(i)
		err := Until(ctx, func() error {
			r.revive()
			if err := gone(r.widgets, name); err != nil {
				return err
			}
			return gone(r.client.Resource(deployments).Namespace(Namespace), name)
		})
		if err == nil {
			_, err = r.client.Resource(configMaps).Namespace(Namespace).Get(ctx, LeftBehind(name), metav1.GetOptions{})
		}
		if err != nil {
			r.t.Error(err)
		}
	}
	for i := 0; i < widgetCount; i += 2 {
		if _, err := r.client.Resource(deployments).Namespace(Namespace).Get(ctx, widgetName(i), metav1.GetOptions{}); err != nil {
			r.t.Error(err)
		}
	}
}

// end judges who led when, and who wrote.
func (r *managerRun) end(ctx context.Context) {
	r.t.Helper()
	for _, m := range r.managers {
		m.Kill()
		if l := &m.lives[len(m.lives)-1]; l.killed.IsZero() {
			l.killed = time.Now()
		}
	}
	if err := r.Truth.Until(ctx, r.Truth.Rev()); err != nil {
		r.t.Fatal(err)
	}
	var terms []Term
	for _, m := range r.managers {
		for i, said := range r.said(m) {
			terms = append(terms, termsOf(m.lives[i], said)...)
		}
	}
	history := r.Truth.All()
	wrong := Overlaps(terms)
	election := JudgeElection(history, registry+"leases/"+Namespace+"/"+ElectionName)
	wrong = append(wrong, election.Wrong...)
	wrong = append(wrong, r.strangers(history, election)...)
	for _, text := range wrong {
		r.t.Error(text)
	}
	if len(terms) < 2 || election.Transitions < 1 {
		r.t.Errorf("%d terms and %d transitions: nothing was handed over", len(terms), election.Transitions)
	}
	slices.Sort(r.takeovers)
	row(r.t, "managers", fmt.Sprint(r.kills), fmt.Sprint(len(terms)), fmt.Sprintf("%d renewals, %d transitions", election.Renewals, election.Transitions),
		fmt.Sprint(r.takeovers[len(r.takeovers)-1].Round(10*time.Millisecond)), fmt.Sprint(widgetCount))
}

// strangers are writes by managers that did not hold the lease when they were
// committed.
func (r *managerRun) strangers(history []event, e *Election) (wrong []string) {
	writes := 0
	for _, ev := range history {
		if ev.new == nil {
			continue
		}
		writer := ev.new.Metadata.Annotations[WriterAnnotation]
		if writer == "" || ev.old != nil && ev.old.Metadata.Annotations[WriterAnnotation] == writer && ev.old.Spec.Replicas == ev.new.Spec.Replicas {
			continue // what others change of it carries the annotation along
		}
		writes++
		if holder := e.HolderAt(ev.rev); holder != writer {
			wrong = append(wrong, fmt.Sprintf("%s was written by %s at %d, when %s held the lease", ev.key, writer, ev.rev, holder))
		}
	}
	if writes == 0 {
		wrong = append(wrong, "no manager wrote anything")
	}
	return wrong
}
