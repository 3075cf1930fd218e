//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
	"github.com/keelson-io/keelson/client"
)

// The load: few keys, so that clients meet, and pauses, so that a run is about
// faults and not about speed.
const (
	loadClients = 8
	loadKeys    = 40
	counterKeys = 3
	loadPause   = 12 * time.Millisecond // in the mean, between two calls of a client
	callTimeout = 8 * time.Second

	// minimumRate is the fewest acknowledged calls a second, before the first
	// fault, with which a run says anything.
	minimumRate = 50
)

// load is the clients of a run.
type load struct {
	c       *Cluster
	rec     *history.Recorder
	clients []*client.Client
	acked   atomic.Int64                  // calls
	writes  atomic.Int64                  // of them
	served  [loadClients + 1]atomic.Int64 // by caller; the last is the nemesis
	next    atomic.Int64                  // lease ids
	stop    chan struct{}
	wg      sync.WaitGroup
}

// connections is how many client libraries the load's clients share.
const connections = 2

func startLoad(c *Cluster, rec *history.Recorder, seed uint64) (*load, error) {
	l := &load{c: c, rec: rec, stop: make(chan struct{})}
	for range connections {
		cl, err := newClient(c)
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, cl)
	}
	for n := range loadClients {
		l.wg.Go(l.caller(n, seed).run)
	}
	return l, nil
}

func (l *load) caller(n int, seed uint64) *caller {
	return &caller{load: l, n: n + 1, cl: l.clients[n%connections], rand: rand.New(rand.NewPCG(seed, uint64(n))), known: map[string]client.KV{}}
}

func newClient(c *Cluster) (*client.Client, error) {
	cfg := client.Config{
		Endpoints: c.endpoints(), Timeout: callTimeout, DialTimeout: time.Second,
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(catch)},
		Username:    c.user, Password: c.user,
	}
	if c.certs != nil {
		cfg.TLS = c.certs.client
	}
	return client.New(cfg)
}

// answer is what a member said on the wire, for those calls of the library that
// do not return all of it. The context has it under answerKey.
type answer struct{ resp proto.Message }

type answerKey struct{}

func catch(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if a, ok := ctx.Value(answerKey{}).(*answer); ok && err == nil {
		a.resp = reply.(proto.Message)
	}
	return err
}

// point tells the clients which members there are.
func (l *load) point() error {
	var errs []error
	for _, cl := range l.clients {
		errs = append(errs, cl.SetEndpoints(l.c.endpoints()...))
	}
	return errors.Join(errs...)
}

// finish ends the calls and waits for them.
func (l *load) finish() {
	close(l.stop)
	l.wg.Wait()
}

func (l *load) close() error {
	var errs []error
	for _, cl := range l.clients {
		errs = append(errs, cl.Close())
	}
	return errors.Join(errs...)
}

// everybodyServed waits until each client got a few more answers.
func (l *load) everybodyServed(limit time.Duration) error {
	var before [loadClients]int64
	for n := range before {
		before[n] = l.served[n].Load()
	}
	return within(limit, func() error {
		for n := range before {
			if l.served[n].Load() < before[n]+3 {
				return fmt.Errorf("O9: client %d is not served", n+1)
			}
		}
		return nil
	})
}

// caller is one client: one call after the other. Its goroutine alone uses it.
type caller struct {
	*load
	n      int
	cl     *client.Client
	rand   *rand.Rand
	tags   int
	known  map[string]client.KV // what it saw last
	leases []client.LeaseID
}

// call is one request: its words on the wire, and how the library asks it.
type call struct {
	method string
	req    proto.Message
	send   func(context.Context, *client.Client) (proto.Message, error)
}

func (w *caller) run() {
	for {
		select {
		case <-w.stop:
			w.leave()
			return
		case <-time.After(time.Duration(w.rand.ExpFloat64() * float64(loadPause))):
		}
		w.do(w.draw())
	}
}

// leave gives its leases back, so that members end alike.
func (w *caller) leave() {
	for _, id := range w.leases {
		w.do(w.revoke(id))
	}
}

// do makes a call and writes it down.
func (w *caller) do(c call) bool {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	rec := w.rec.Call(w.n, 0, "", c.method, c.req)
	resp, err := c.send(ctx, w.cl)
	outcome := history.OK
	switch {
	case err == nil:
		w.acked.Add(1)
		w.served[w.n-1].Add(1)
		if op := (&history.Op{Request: c.req}); !op.ReadOnly() {
			w.writes.Add(1)
		}
	case errors.Is(err, client.ErrUnknownOutcome):
		outcome = history.Unknown
	default:
		outcome = history.Refused
	}
	rec.Return(resp, outcome, wordsOf(err))
	return err == nil
}

// wordsOf is the refusal of a member in its own words, as the log would give it.
func wordsOf(err error) error {
	var e *client.Error
	if errors.As(err, &e) && !e.Unknown {
		return e.Err
	}
	return err
}

// draw makes up the next call.
func (w *caller) draw() call {
	key := fmt.Sprintf("key/%03d", w.rand.IntN(loadKeys))
	switch n := w.rand.IntN(100); {
	case n < 35:
		return w.put(key)
	case n < 50:
		return w.read(client.Key(key), &pb.RangeRequest{Key: []byte(key)})
	case n < 55:
		return w.read(client.Prefix("key/"), &pb.RangeRequest{Key: []byte("key/"), RangeEnd: []byte("key0")})
	case n < 60:
		return w.read(client.Key(key), &pb.RangeRequest{Key: []byte(key), Serializable: true}, client.Serializable())
	case n < 65:
		return w.remove(key)
	case n < 80:
		return w.swap(key, w.tag())
	case n < 95:
		key = fmt.Sprint(oracle.CounterPrefix, w.rand.IntN(counterKeys))
		was, _ := strconv.Atoi(strings.SplitN(string(w.known[key].Value), " ", 2)[0]) // absent: 0
		return w.swap(key, fmt.Appendf(nil, "%d %s", was+1, w.tag()))
	case n < 97 && len(w.leases) < 3:
		return w.grant()
	case len(w.leases) > 0 && n < 99:
		return w.put(key, w.leases[0])
	case len(w.leases) > 0:
		id := w.leases[0]
		w.leases = w.leases[1:]
		return w.revoke(id)
	}
	return w.put(key)
}

// tag is a value that nobody else writes.
func (w *caller) tag() []byte {
	w.tags++
	return append(fmt.Appendf(nil, "%d:%d ", w.n, w.tags), strings.Repeat("x", w.rand.IntN(200))...)
}

func header(rev client.Revision) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: int64(rev)} }

func (w *caller) put(key string, lease ...client.LeaseID) call {
	req := &pb.PutRequest{Key: []byte(key), Value: w.tag()}
	var opts []client.WriteOption
	for _, id := range lease {
		req.Lease, opts = int64(id), append(opts, client.WithLease(id))
	}
	return call{"etcdserverpb.KV/Put", req, func(ctx context.Context, cl *client.Client) (proto.Message, error) {
		rev, err := cl.Put(ctx, key, req.Value, opts...)
		return &pb.PutResponse{Header: header(rev)}, err
	}}
}

// big is a put of a large value, of which watchers do not hear.
func (w *caller) big(key string, size int) call {
	c := w.put("~" + key)
	req := c.req.(*pb.PutRequest)
	req.Value = append(req.Value, make([]byte, size)...)
	return c
}

func (w *caller) read(r client.Range, req *pb.RangeRequest, opts ...client.ReadOption) call {
	return call{"etcdserverpb.KV/Range", req, func(ctx context.Context, cl *client.Client) (proto.Message, error) {
		page, err := cl.List(ctx, r, opts...)
		w.learn(page.KVs)
		return &pb.RangeResponse{Header: header(page.Revision), Kvs: wire(page.KVs), Count: page.Count, More: page.More}, err
	}}
}

func (w *caller) learn(kvs []client.KV) {
	for _, kv := range kvs {
		w.known[kv.Key] = kv
	}
}

// remove deletes one key. The end of its range is a tag, so that the call can be
// found in the log.
func (w *caller) remove(key string) call {
	end := key + "\x00" + string(w.tag())
	return call{"etcdserverpb.KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}, func(ctx context.Context, cl *client.Client) (proto.Message, error) {
		d, err := cl.DeleteRange(ctx, client.Span(key, end))
		return &pb.DeleteRangeResponse{Header: header(d.Revision), Deleted: d.Count}, err
	}}
}

// swap writes if the key is still what the client saw last, and reads it if not.
func (w *caller) swap(key string, value []byte) call {
	was := w.known[key].Modified
	req := &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(was)}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}},
	}
	return call{"etcdserverpb.KV/Txn", req, func(ctx context.Context, cl *client.Client) (proto.Message, error) {
		r, err := cl.Txn().If(client.Key(key).ModifiedAt(client.Equal, was)).Then(client.OpPut(key, value)).Else(client.OpGet(client.Key(key))).Commit(ctx)
		if err != nil {
			return nil, err
		}
		resp := &pb.TxnResponse{Header: header(r.Revision), Succeeded: r.Succeeded}
		if r.Succeeded {
			w.learn([]client.KV{{Key: key, Value: value, Modified: r.Revision}})
			resp.Responses = []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}}}
			return resp, nil
		}
		got := r.Results[0]
		delete(w.known, key) // unless it is there
		w.learn(got.KVs)
		found := &pb.RangeResponse{Kvs: wire(got.KVs), Count: got.Count, More: got.More}
		resp.Responses = []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponseRange{ResponseRange: found}}}
		return resp, nil
	}}
}

func (w *caller) grant() call {
	id, ttl := client.LeaseID(w.next.Add(1)), 30*time.Second
	req := &pb.LeaseGrantRequest{ID: int64(id), TTL: int64(ttl / time.Second)}
	w.leases = append(w.leases, id)
	return call{"etcdserverpb.Lease/LeaseGrant", req, func(ctx context.Context, cl *client.Client) (proto.Message, error) {
		a := &answer{}
		_, err := cl.GrantID(context.WithValue(ctx, answerKey{}, a), id, ttl)
		return a.resp, err
	}}
}

func (w *caller) revoke(id client.LeaseID) call {
	return call{"etcdserverpb.Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: int64(id)}, func(ctx context.Context, cl *client.Client) (proto.Message, error) {
		a := &answer{}
		err := cl.Revoke(context.WithValue(ctx, answerKey{}, a), id)
		return a.resp, err
	}}
}

// wire makes the API's messages of the library's.
func wire(kvs []client.KV) (out []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		out = append(out, &mvccpb.KeyValue{
			Key: []byte(kv.Key), Value: kv.Value, CreateRevision: int64(kv.Created), ModRevision: int64(kv.Modified), Version: kv.Version, Lease: int64(kv.Lease),
		})
	}
	return out
}
