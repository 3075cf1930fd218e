//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/load"
	"github.com/keelson-io/keelson/chaos/workload"
	"github.com/keelson-io/keelson/client"
)

// The load: few keys, so that clients meet, and pauses, so that a run is about
// faults and not about speed.
const (
	loadKeys    = 40
	loadBytes   = 200                   // that values are longer than their tags, at most
	loadPause   = 18 * time.Millisecond // in the mean, between two calls of a client
	callTimeout = 8 * time.Second

	// minimumRate is the fewest acknowledged calls a second, before the first
	// fault, with which a run says anything.
	minimumRate = 50
)

// mix has no compaction, which would overtake watches.
var mix = workload.Mix{Put: 25, Get: 15, List: 3, Stale: 5, Delete: 5, Swap: 15, Count: 12, Txn: 6, ReadTxn: 4, Old: 2, Grant: 2, KeepAlive: 3, Revoke: 1, LeasedPut: 3}

// kinds are the clients of a run. Those with a library fail over, and share two;
// the others talk to one member, as plain as etcd's own client does, until a call
// fails.
var kinds = []struct {
	library bool
	objects bool // in runs with the Kubernetes API its clients take their place
	source  func(n int, r *rand.Rand) workload.Source
}{
	{true, false, mixed}, {true, false, mixed}, {true, false, mixed}, {false, false, mixed}, {false, false, mixed},
	{true, false, lists}, {false, false, lists}, {true, false, locks}, {false, false, locks}, {true, true, registry}, {false, true, registry},
}

func mixed(n int, r *rand.Rand) workload.Source {
	return &workload.Mixed{Client: n, R: r, Mix: mix, Keys: loadKeys, ValueBytes: loadBytes}
}
func lists(n int, r *rand.Rand) workload.Source { return workload.NewLists(n, r) }
func locks(n int, r *rand.Rand) workload.Source { return workload.NewLocks(n, r) }
func registry(n int, r *rand.Rand) workload.Source {
	return workload.NewRegistry(n, r, loadBytes)
}

// traffic is the clients of a run.
type traffic struct {
	c       *Cluster
	rec     *history.Recorder
	clients []*client.Client
	callers []*caller
	acked   atomic.Int64 // calls
	writes  atomic.Int64 // of them
	stop    chan struct{}
	wg      sync.WaitGroup
}

// connections is how many client libraries the load's clients share.
const connections = 2

func startTraffic(c *Cluster, rec *history.Recorder, seed uint64) (*traffic, error) {
	l := &traffic{c: c, rec: rec, stop: make(chan struct{})}
	for range connections {
		cl, err := newClient(c)
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, cl)
	}
	for i, k := range kinds {
		w := l.caller(i+1, seed)
		w.from(k.source(w.n, w.rand))
		if c.objects && k.objects {
			w.step = newObjects(w).step
		}
		if !k.library && c.user == "" { // users need tokens, which the library gets
			w.cl, w.at = nil, i
		}
		l.callers = append(l.callers, w)
	}
	for _, w := range l.callers {
		l.wg.Go(w.run)
	}
	return l, nil
}

// caller makes one that asks nothing by itself.
func (l *traffic) caller(n int, seed uint64) *caller {
	return &caller{traffic: l, n: n, cl: l.clients[n%connections], rand: rand.New(rand.NewPCG(seed, uint64(n)))}
}

func newClient(c *Cluster) (*client.Client, error) {
	cfg := client.Config{Endpoints: c.endpoints(), Timeout: callTimeout, DialTimeout: time.Second, Username: c.user, Password: c.user}
	if c.certs != nil {
		cfg.TLS = c.certs.client
	}
	return client.New(cfg)
}

// point tells the clients which members there are.
func (l *traffic) point() error {
	var errs []error
	for _, cl := range l.clients {
		errs = append(errs, cl.SetEndpoints(l.c.endpoints()...))
	}
	return errors.Join(errs...)
}

// finish ends the calls and waits for them.
func (l *traffic) finish() {
	close(l.stop)
	l.wg.Wait()
}

func (l *traffic) close() error {
	var errs []error
	for _, cl := range l.clients {
		errs = append(errs, cl.Close())
	}
	return errors.Join(errs...)
}

// everybodyServed waits until each client got a few more answers.
func (l *traffic) everybodyServed(limit time.Duration) error {
	before := make([]int64, len(l.callers))
	for i, w := range l.callers {
		before[i] = w.served.Load()
	}
	return within(limit, func() error {
		for i, w := range l.callers {
			if w.served.Load() < before[i]+3 {
				return fmt.Errorf("O9: client %d is not served", w.n)
			}
		}
		return nil
	})
}

// caller is one client: one call after the other. Its goroutine alone uses it.
type caller struct {
	*traffic
	n      int
	step   func()         // asks once
	cl     *client.Client // nil: it goes without
	at     int            // then, where it asks
	rand   *rand.Rand
	served atomic.Int64
	tags   int
}

func (w *caller) run() {
	for {
		select {
		case <-w.stop:
			return
		case <-time.After(time.Duration(w.rand.ExpFloat64() * float64(loadPause))):
		}
		w.step()
	}
}

// from makes the caller ask what a source says.
func (w *caller) from(s workload.Source) {
	w.step = func() {
		if method, req := s.Next(); method != "" {
			s.Learn(w.do(method, req))
		}
	}
}

// member is whom the caller asks if it goes without a library.
func (w *caller) member() *Member {
	all := w.c.members()
	return all[w.at%len(all)]
}

// conn is how the next call goes.
func (w *caller) conn() (load.Conn, error) {
	if w.cl != nil {
		return load.Conn{ClientConnInterface: w.cl.Conn(), Name: "client", Outcome: load.OutcomeOfClient}, nil
	}
	m := w.member()
	cc, err := w.c.dial(m.endpoint())
	return load.Conn{ClientConnInterface: cc, Name: m.Name, Member: m.ID, Outcome: history.OutcomeOf}, err
}

// do makes a call and writes it down.
func (w *caller) do(method string, req proto.Message) *history.Op {
	conn, err := w.conn()
	rec := w.rec.Call(w.n, conn.Member, conn.Name, method, req)
	if err != nil {
		return rec.Return(nil, history.Refused, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	resp, err := conn.Do(ctx, method, req)
	return w.count(rec.Return(resp, conn.Outcome(err), wordsOf(err)))
}

// count notes how a call ended, and leaves a member that did not answer.
func (w *caller) count(op *history.Op) *history.Op {
	switch op.Outcome {
	case history.OK:
		w.acked.Add(1)
		w.served.Add(1)
		if !op.ReadOnly() {
			w.writes.Add(1)
		}
	case history.Unknown:
		w.at++
	}
	return op
}

// wordsOf is the refusal of a member in its own words, as the log would give it.
func wordsOf(err error) error {
	var e *client.Error
	if errors.As(err, &e) && !e.Unknown {
		return e.Err
	}
	if refusal := api.FindError(status.Convert(err).Message()); refusal != nil {
		return refusal
	}
	return err
}

// tag is a value that nobody else writes, of so many bytes more.
func (w *caller) tag(size int) []byte {
	w.tags++
	return append(fmt.Appendf(nil, "%d:%d ", w.n, w.tags), make([]byte, size)...)
}

// put writes such a value.
func (w *caller) put(key string, size int) *history.Op {
	return w.do("etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte(key), Value: w.tag(size)})
}

// big is a put of a large value, of which watchers do not hear.
func (w *caller) big(n int) *history.Op { return w.put(fmt.Sprint("~big/", n), bigBytes) }

const bigBytes = 128 << 10

// leases are those that live.
func (w *caller) leases() (map[int64]bool, error) {
	conn, err := w.conn()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	all, err := pb.NewLeaseClient(conn).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	live := map[int64]bool{}
	for _, l := range all.GetLeases() {
		live[l.ID] = true
	}
	return live, err
}

// free gives all leases back, so that members end alike.
func (w *caller) free() error {
	return within(patience, func() error {
		live, err := w.leases()
		if err == nil && len(live) > 0 {
			err = fmt.Errorf("O7: %d leases live on", len(live))
		}
		for id := range live {
			w.do("etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: id})
		}
		return err
	})
}
