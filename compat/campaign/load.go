package campaign

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/keelson-io/keelson/compat/cluster"
)

const (
	prefix     = "load/"
	counterKey = prefix + "counter/"
	lastKey    = prefix + "zz-last" // put when all else has ended
	counters   = 3
	// callTimeout is how long a client waits for one write: longer than any
	// failover should take.
	callTimeout = 10 * time.Second
)

// write is one attempt to change a key, with a value nobody else writes.
type write struct {
	key, tag string
	acked    bool
	failed   bool // surely not applied: a compare did not hold
	revision int64
	err      error
}

// load is all clients of one campaign. Fields below mu are shared.
type load struct {
	clients []*clientv3.Client
	stop    chan struct{}
	writers sync.WaitGroup // and counters and readers: all that stop ends

	acked      atomic.Int64 // writes
	reads      atomic.Int64
	seen       atomic.Int64 // highest revision acknowledged to anyone
	increments [counters]struct{ acked, unknown atomic.Int64 }

	mu struct {
		sync.Mutex
		writes [][]write // per writer, in order
		broken []string
	}
	watches []*watchRecord
}

// watchRecord is what one watch told.
type watchRecord struct {
	through string
	mu      struct {
		sync.Mutex
		events []Event
		err    error
	}
	done chan struct{} // closed when the last key was seen, or the watch failed
}

func newClient(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second})
}

func startLoad(ctx context.Context, c *cluster.Cluster, writers int) (*load, error) {
	l := &load{stop: make(chan struct{})}
	l.mu.writes = make([][]write, writers)
	for range 4 {
		cl, err := newClient(c.Endpoints()...)
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, cl)
	}
	for i, m := range c.Members {
		cl, err := newClient(m.Endpoint)
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, cl)
		l.watch(ctx, cl, fmt.Sprintf("member %d", i+1))
	}
	l.watch(ctx, l.clients[0], "all members")
	for i := range writers {
		l.writers.Go(func() { l.writer(ctx, i) })
	}
	for i := range counters {
		l.writers.Go(func() { l.counter(ctx, i) })
	}
	for i := range 2 {
		l.writers.Go(func() { l.reader(ctx, i) })
	}
	return l, nil
}

func (l *load) running(ctx context.Context) bool {
	select {
	case <-l.stop:
		return false
	default:
		return ctx.Err() == nil
	}
}

// writer puts one tag after the other, a third of them guarded by the revision it
// wrote last.
func (l *load) writer(ctx context.Context, id int) {
	rng := rand.New(rand.NewPCG(uint64(id), 1))
	client := l.clients[id%4]
	last := map[string]int64{} // key → revision of its last write
	// A write of unknown outcome may still be applied, so its key is not guarded any more.
	unknown := map[string]bool{}
	for n := 0; l.running(ctx); n++ {
		w := write{key: fmt.Sprintf("%s%d/%d", prefix, id, rng.IntN(8)), tag: fmt.Sprintf("tag-%d-%d", id, n)}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		rev, known := last[w.key]
		if known && !unknown[w.key] && n%3 == 0 {
			l.guarded(call, client, &w, rev)
		} else {
			resp, err := client.Put(call, w.key, w.tag)
			if w.err = err; err == nil {
				w.acked, w.revision = true, resp.Header.Revision
			}
		}
		cancel()
		if w.acked {
			last[w.key] = w.revision
			l.ack(w.revision)
		} else {
			unknown[w.key] = true
		}
		l.mu.Lock()
		l.mu.writes[id] = append(l.mu.writes[id], w)
		l.mu.Unlock()
	}
}

func (l *load) guarded(ctx context.Context, client *clientv3.Client, w *write, rev int64) {
	resp, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(w.key), "=", rev)).Then(clientv3.OpPut(w.key, w.tag)).Commit()
	switch {
	case err != nil:
		w.err = err
	case resp.Succeeded:
		w.acked, w.revision = true, resp.Header.Revision
	default:
		w.failed = true
		// Nobody else writes this key and its last write was acknowledged.
		l.violation("the guard of %s failed: its last acknowledged revision is %d", w.key, rev)
	}
}

// counter raises one counter by compare-and-swap.
func (l *load) counter(ctx context.Context, id int) {
	key := counterKey + strconv.Itoa(id)
	client := l.clients[id%4]
	for l.running(ctx) {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		get, err := client.Get(call, key)
		if err != nil {
			cancel()
			continue
		}
		n, rev := 0, int64(0)
		if len(get.Kvs) > 0 {
			rev = get.Kvs[0].ModRevision
			n, _ = strconv.Atoi(strings.TrimPrefix(string(get.Kvs[0].Value), key+"="))
		}
		put := clientv3.OpPut(key, fmt.Sprintf("%s=%d", key, n+1))
		resp, err := client.Txn(call).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).Then(put).Commit()
		cancel()
		switch {
		case err != nil:
			l.increments[id].unknown.Add(1)
		case resp.Succeeded:
			l.increments[id].acked.Add(1)
			l.ack(resp.Header.Revision)
		}
	}
}

// reader checks that a linearizable read is never behind an acknowledged write.
func (l *load) reader(ctx context.Context, id int) {
	client := l.clients[id%4]
	for l.running(ctx) {
		before := l.seen.Load()
		call, cancel := context.WithTimeout(ctx, callTimeout)
		resp, err := client.Get(call, counterKey+"0")
		cancel()
		if err != nil {
			continue
		}
		l.reads.Add(1)
		if resp.Header.Revision < before {
			l.violation("a read answered at revision %d, after revision %d had been acknowledged", resp.Header.Revision, before)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// watch records what a watch tells, until it has told of the last key. The client
// resumes it by itself.
func (l *load) watch(ctx context.Context, client *clientv3.Client, through string) {
	rec := &watchRecord{through: through, done: make(chan struct{})}
	l.watches = append(l.watches, rec)
	ch := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(1))
	go func() { // ends with the last key, or with the client
		defer close(rec.done)
		for resp := range ch {
			rec.mu.Lock()
			for _, ev := range resp.Events {
				e := newEvent(ev)
				rec.mu.events = append(rec.mu.events, e)
				if e.Key == lastKey {
					rec.mu.Unlock()
					return
				}
			}
			rec.mu.Unlock()
			if err := resp.Err(); err != nil {
				rec.mu.Lock()
				rec.mu.err = err
				rec.mu.Unlock()
				return
			}
		}
	}()
}

func (l *load) ack(rev int64) {
	l.acked.Add(1)
	for {
		old := l.seen.Load()
		if rev <= old || l.seen.CompareAndSwap(old, rev) {
			return
		}
	}
}

func (l *load) violation(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.broken = append(l.mu.broken, fmt.Sprintf(format, args...))
}
