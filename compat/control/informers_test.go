package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientfeatures "k8s.io/client-go/features"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// size of a run: FULL asks for the one that reports are about.
type size struct {
	writers, names  int // names of each writer in each kind
	rounds, between int // kills of each sort; changes before each and after
}

func sizeOf() size {
	if os.Getenv("FULL") != "" {
		return size{writers: 50, names: 67, rounds: 3, between: 1000}
	}
	return size{writers: 6, names: 20, rounds: 1, between: 150}
}

// TestInformers: informers of all sorts while leaders and the members that serve
// them are killed. Every list and watch told the truth, nothing went back, and
// at rest each informer's store is what a list at its resource version gives.
func TestInformers(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	n := sizeOf()
	w, err := StartWorld(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r := &informerRun{World: w, t: t, size: n}
	r.begin(ctx)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() { r.writers.run(ctx, stop) })
	for round := range n.rounds {
		r.killLeader(ctx)
		r.killServing(ctx, round%len(r.fronts))
	}
	r.loseHistory(ctx)
	close(stop)
	busy.Wait()
	r.atRest(ctx)
	r.end()
}

type informerRun struct {
	*World
	t        *testing.T
	size     size
	writers  *writers
	fronts   []*Front
	subjects []*subject
	stopping chan struct{}
	kills    int
	objects  int
}

// begin fills the store and starts the informers: each second one reaches the
// members through another front, and over another version of HTTP.
func (r *informerRun) begin(ctx context.Context) {
	var urls []string
	for i := range 2 {
		f, url, err := r.Front(i+1, i == 0)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(f.Close)
		r.fronts, urls = append(r.fronts, f), append(urls, url)
	}
	var ways []*rest.Config
	for i := range r.Store.Members {
		f, url, err := r.Front(i, false)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(f.Close)
		ways = append(ways, r.ConfigOf(url))
	}
	var err error
	if r.writers, err = newWriters(ways, r.size.writers, r.size.names); err != nil {
		r.t.Fatal(err)
	}
	r.writers.fill(ctx)
	r.stopping = make(chan struct{})
	for i, m := range makers {
		s, err := newSubject(r.World, m, urls[i%len(urls)], r.writers.newest.Load)
		if err != nil {
			r.t.Fatal(err)
		}
		r.subjects = append(r.subjects, s)
		s.start(r.stopping)
	}
	for _, s := range r.subjects {
		if !cache.WaitForCacheSync(ctx.Done(), s.informer.HasSynced) {
			r.t.Fatalf("%s does not sync", s.wire.name)
		}
	}
}

func (r *informerRun) await(ctx context.Context) {
	r.t.Helper()
	if err := r.writers.await(ctx, r.size.between); err != nil {
		r.t.Fatal(err)
	}
}

// kill kills a member between two amounts of work.
func (r *informerRun) kill(ctx context.Context, i int, what string) {
	r.t.Helper()
	r.await(ctx)
	at := time.Now()
	r.Kill(i)
	r.kills++
	if err := r.writers.await(ctx, 1); err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("%s (%s) was killed; the next change was acknowledged %v later", r.Store.Members[i].Name, what, time.Since(at).Round(time.Millisecond))
	r.await(ctx)
	r.restart(ctx, i)
}

func (r *informerRun) restart(ctx context.Context, i int) {
	r.t.Helper()
	if err := r.Restart(ctx, i); err != nil {
		r.t.Fatal(err)
	}
}

func (r *informerRun) killLeader(ctx context.Context) {
	r.t.Helper()
	i, err := r.Leader(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	r.kill(ctx, i, "the leader")
}

func (r *informerRun) killServing(ctx context.Context, front int) {
	r.t.Helper()
	r.kill(ctx, r.fronts[front].Serving(), fmt.Sprintf("serves informers, front %d", front))
}

// loseHistory keeps the informers behind the first front from the members until what
// they miss is compacted, and the member that they come back to knows nothing of it.
func (r *informerRun) loseHistory(ctx context.Context) {
	r.t.Helper()
	r.fronts[0].Cut()
	r.await(ctx)
	rev := r.writers.newest.Load()
	if err := r.Truth.Until(ctx, rev); err != nil {
		r.t.Fatal(err)
	}
	to := r.fronts[0].Serving()
	r.Kill(to)
	r.kills++
	r.restart(ctx, to)
	if err := Until(ctx, func() error { _, err := r.Etcd.Compact(ctx, rev, clientv3.WithCompactPhysical()); return err }); err != nil {
		r.t.Fatal(err)
	}
	r.fronts[0].Mend(to)
	r.await(ctx)
}

// atRest waits for each informer to hold what a list gives, and then compares it
// with the list at the informer's own resource version.
func (r *informerRun) atRest(ctx context.Context) {
	r.t.Helper()
	for _, s := range r.subjects {
		differs := ""
		err := Until(ctx, func() error {
			list, err := s.list(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			if differs, err = s.differs(list); differs != "" {
				return fmt.Errorf("it does not come to rest: %s", differs)
			}
			return err
		})
		if err != nil {
			r.t.Errorf("%s: %v", s.wire.name, err)
			continue
		}
		rev := s.informer.LastSyncResourceVersion()
		exact, err := s.list(ctx, metav1.ListOptions{ResourceVersion: rev, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
		if err != nil {
			r.t.Errorf("%s: list at %s: %v", s.wire.name, rev, err)
			continue
		}
		if differs, err = s.differs(exact); differs != "" || err != nil {
			r.t.Errorf("%s: at %s: %s, %v", s.wire.name, rev, differs, err)
		}
		list, err := meta.ListAccessor(exact)
		if err != nil {
			r.t.Fatal(err)
		}
		if err := r.Truth.Until(ctx, number(list.GetResourceVersion())); err != nil {
			r.t.Fatal(err)
		}
		r.objects += len(s.informer.GetStore().ListKeys())
	}
}

// end stops the informers and judges what they were told.
func (r *informerRun) end() {
	r.t.Helper()
	close(r.stopping)
	for _, s := range r.subjects {
		s.shutdown()
	}
	history := r.Truth.All()
	t := &Tally{}
	failed := map[string]int{}
	for _, s := range r.subjects {
		Judge(history, s.wire, t)
		s.seen.judge(s.wire, t)
		for why, n := range s.wire.mu.failed {
			failed[why] += n
		}
	}
	t.Wrong = append(t.Wrong, r.writers.mu.wrong...)
	for i, text := range t.Wrong {
		if i == 40 {
			r.t.Errorf("and %d more", len(t.Wrong)-i)
			break
		}
		r.t.Error(text)
	}
	if t.Expired == 0 {
		r.t.Error("no watch was told that history is gone: the run does not show how informers begin again")
	}
	if t.Streams == 0 || t.Events == 0 {
		r.t.Error("no watch told anything")
	}
	r.t.Logf("%d changes acknowledged; outcomes read back: %v; requests of informers that failed: %v; errors in watches: %v",
		r.writers.acked.Load(), r.writers.mu.why, failed, t.Errors)
	mode := "listed"
	if clientfeatures.FeatureGates().Enabled(clientfeatures.WatchListClient) {
		mode = "streamed"
	}
	row(r.t, "informers", mode, fmt.Sprint(len(r.subjects)), fmt.Sprint(r.objects), fmt.Sprint(r.kills), fmt.Sprint(r.writers.acked.Load()), sum(r.writers.mu.why),
		fmt.Sprintf("%d lists of %d objects", t.Lists, t.Items), fmt.Sprintf("%d watches, %d events, %d bookmarks", t.Streams, t.Events, t.Bookmarks),
		fmt.Sprintf("%d after %d times 410", t.Relists, t.Expired))
}

func sum(counts map[string]int) string {
	n := 0
	for _, c := range counts {
		n += c
	}
	return fmt.Sprint(n)
}

// row logs what a run came to, and appends it to the file that ROWS names, for
// the report.
func row(t *testing.T, name string, cells ...string) {
	t.Helper()
	line := fmt.Sprintf("| %s | %s |", name, strings.Join(cells, " | "))
	t.Log(line)
	path := os.Getenv("ROWS")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Error(err)
	}
}
