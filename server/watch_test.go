package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// watchBench is a Watch server over a store in memory, and a client of it.
type watchBench struct {
	t      testing.TB
	store  *mvcc.Store
	index  api.Index
	clock  *clock.Fake
	client pb.WatchClient
	addr   string
	denied atomic.Pointer[api.Error]
}

func (w *watchBench) NewWatchStream() *mvcc.WatchStream { return w.store.NewWatchStream() }
func (w *watchBench) Term() api.Term                    { return 7 }

func (w *watchBench) WatchPermitted(context.Context, []byte, []byte) error {
	if err := w.denied.Load(); err != nil {
		return err
	}
	return nil
}

func newWatchBench(t testing.TB, fragment int) *watchBench {
	t.Helper()
	w := &watchBench{t: t, clock: clock.NewFake(time.Unix(0, 0))}
	store, err := mvcc.Open(mvcc.Config{Clock: w.clock, Engine: engine.NewMemory(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.store = store
	g := grpc.NewServer(grpc.ForceServerCodecV2(Codec()))
	g.RegisterService(&watchService, newWatchServer(watchConfig{
		Backend: w, Cluster: 1, Member: 2, Clock: w.clock, Logger: slog.New(slog.DiscardHandler),
		FragmentBytes: fragment, ProgressInterval: time.Minute, Jitter: func(int64) int64 { return 0 },
	}))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	w.client, w.addr = pb.NewWatchClient(conn), lis.Addr().String()
	return w
}

// write is one revision.
func (w *watchBench) write(fn func(tx *mvcc.WriteTxn)) api.Revision {
	tx := w.store.Begin()
	fn(tx)
	r := tx.End()
	w.index++
	w.store.Seal(w.index, 7)
	w.store.Publish()
	return r.Revision
}

func (w *watchBench) put(keys ...string) api.Revision {
	return w.write(func(tx *mvcc.WriteTxn) {
		for _, k := range keys {
			tx.Put([]byte(k), []byte("value of "+k), 0)
		}
	})
}

// conversation is one stream of a client.
type conversation struct {
	w      *watchBench
	stream pb.Watch_WatchClient
	cancel context.CancelFunc
}

func (w *watchBench) open() *conversation {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	stream, err := w.client.Watch(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cancel)
	return &conversation{w, stream, cancel}
}

func (c *conversation) create(r *pb.WatchCreateRequest) {
	c.w.t.Helper()
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (c *conversation) cancelWatch(id int64) {
	c.w.t.Helper()
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (c *conversation) progress() {
	c.w.t.Helper()
	c.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (c *conversation) send(r *pb.WatchRequest) {
	c.w.t.Helper()
	if err := c.stream.Send(r); err != nil {
		c.w.t.Fatal(err)
	}
}

func (c *conversation) recv() *pb.WatchResponse {
	c.w.t.Helper()
	r, err := c.stream.Recv()
	if err != nil {
		c.w.t.Fatal(err)
	}
	return r
}

// expect compares the next answer, every field of it.
func (c *conversation) expect(want *pb.WatchResponse, rev api.Revision) {
	c.w.t.Helper()
	c.expectAll(rev, want)
}

// expectAll compares the next answers, which go to different watches and have
// no order among them.
func (c *conversation) expectAll(rev api.Revision, want ...*pb.WatchResponse) {
	c.w.t.Helper()
	for range want {
		got, known := c.recv(), false
		for _, r := range want {
			r.Header = &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: int64(rev), RaftTerm: 7}
			known = known || proto.Equal(got, r)
		}
		if !known {
			c.w.t.Fatalf("got  %v\nwant %v", got, want)
		}
	}
}

func putEvent(key string, create, mod, version int64) *mvccpb.Event {
	return &mvccpb.Event{Kv: &mvccpb.KeyValue{
		Key: []byte(key), Value: []byte("value of " + key), CreateRevision: create, ModRevision: mod, Version: version}}
}

// TestWatchAnswers holds every kind of answer to etcd's, field by field.
func TestWatchAnswers(t *testing.T) {
	w := newWatchBench(t, 1<<20)
	c := w.open()
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), PrevKv: true})
	c.expect(&pb.WatchResponse{Created: true}, 1)
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte("c"), WatchId: 42})
	c.expect(&pb.WatchResponse{Created: true, WatchId: 42}, 1)
	c.create(&pb.WatchCreateRequest{Key: []byte("x"), WatchId: 42})
	c.expect(&pb.WatchResponse{Created: true, Canceled: true, WatchId: -1,
		CancelReason: "mvcc: duplicate watch ID provided on the WatchStream"}, 1)
	c.create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
	c.expect(&pb.WatchResponse{Created: true, Canceled: true, WatchId: -1, CancelReason: "mvcc: watcher range is empty"}, 1)
	c.create(&pb.WatchCreateRequest{Key: []byte("x"), StartRevision: -1})
	c.expect(&pb.WatchResponse{Created: true, Canceled: true, WatchId: -1,
		CancelReason: "etcdserver: mvcc: required revision has been compacted"}, 1)
	w.denied.Store(api.ErrTooManyRequests) // any will do
	c.create(&pb.WatchCreateRequest{Key: []byte("x")})
	c.expect(&pb.WatchResponse{Created: true, Canceled: true, WatchId: -1,
		CancelReason: "rpc error: code = ResourceExhausted desc = etcdserver: too many requests"}, 1)
	w.denied.Store(nil)

	w.put("a")
	c.expectAll(2, &pb.WatchResponse{Events: []*mvccpb.Event{putEvent("a", 2, 2, 1)}},
		&pb.WatchResponse{WatchId: 42, Events: []*mvccpb.Event{putEvent("a", 2, 2, 1)}})
	w.put("a", "b", "z")
	again, withPrev := putEvent("a", 2, 3, 2), putEvent("a", 2, 3, 2)
	withPrev.PrevKv = putEvent("a", 2, 2, 1).Kv
	c.expectAll(3, &pb.WatchResponse{WatchId: 42, Events: []*mvccpb.Event{again, putEvent("b", 3, 3, 1)}},
		&pb.WatchResponse{Events: []*mvccpb.Event{withPrev}})
	w.write(func(tx *mvcc.WriteTxn) { tx.DeleteRange([]byte("a"), nil, nil) })
	gone := &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte("a"), ModRevision: 4}}
	goneWithPrev := proto.Clone(gone).(*mvccpb.Event)
	goneWithPrev.PrevKv = again.Kv
	c.expectAll(4, &pb.WatchResponse{WatchId: 42, Events: []*mvccpb.Event{gone}},
		&pb.WatchResponse{Events: []*mvccpb.Event{goneWithPrev}})

	c.progress()
	c.expect(&pb.WatchResponse{WatchId: -1}, 4)
	c.cancelWatch(17) // nobody: no answer
	c.cancelWatch(42)
	c.expect(&pb.WatchResponse{WatchId: 42, Canceled: true}, 4)

	w.write(func(tx *mvcc.WriteTxn) {
		if err := tx.Compact(4); err != nil {
			t.Error(err)
		}
	})
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 3})
	c.expect(&pb.WatchResponse{WatchId: 1, Created: true}, 4)
	c.expect(&pb.WatchResponse{WatchId: 1, Canceled: true, CompactRevision: 4}, 0)
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 4})
	c.expect(&pb.WatchResponse{WatchId: 2, Created: true}, 4)
	c.expect(&pb.WatchResponse{WatchId: 2, Events: []*mvccpb.Event{gone}}, 4) // a tombstone at the compact revision is kept
}

// TestWatchKeys covers etcd's reading of empty keys and ends.
func TestWatchKeys(t *testing.T) {
	for _, tc := range []struct {
		key, end string
		want     []string // of "\x00", "a", "b"
	}{
		{"", "", []string{"\x00"}},
		{"", "\x00", []string{"\x00", "a", "b"}},
		{"a", "\x00", []string{"a", "b"}},
		{"a", "", []string{"a"}},
		{"", "b", []string{"\x00", "a"}},
	} {
		t.Run(fmt.Sprintf("%q-%q", tc.key, tc.end), func(t *testing.T) {
			w := newWatchBench(t, 1<<20)
			w.put("\x00", "a", "b")
			c := w.open()
			c.create(&pb.WatchCreateRequest{Key: []byte(tc.key), RangeEnd: []byte(tc.end), StartRevision: 1})
			c.recv()
			var got []string
			for _, e := range c.recv().Events {
				got = append(got, string(e.Kv.Key))
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestWatchFilters: what is filtered out does not even make an answer.
func TestWatchFilters(t *testing.T) {
	w := newWatchBench(t, 1<<20)
	c := w.open()
	both := []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE}
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), Filters: both})
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), Filters: both[:1]})
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), Filters: append(both[1:], 99)})
	for range 3 {
		c.recv()
	}
	w.put("a")
	w.write(func(tx *mvcc.WriteTxn) { tx.DeleteRange([]byte("a"), nil, nil) })
	got := map[int64]string{}
	for range 2 {
		r := c.recv()
		got[r.WatchId] = fmt.Sprint(r.Events[0].Type, len(r.Events))
	}
	c.progress()
	c.expect(&pb.WatchResponse{WatchId: -1}, 3)
	if got[1] != "DELETE 1" || got[2] != "PUT 1" {
		t.Errorf("got %v", got)
	}
}

// TestWatchFragments: an answer that is too large comes in pieces, for who
// asked for that, and whole for who did not.
func TestWatchFragments(t *testing.T) {
	const limit = 200
	w := newWatchBench(t, limit)
	c := w.open()
	c.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), Fragment: true})
	c.create(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("m")})
	c.recv()
	c.recv()
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprintf("k%02d", i))
	}
	w.put(keys...)
	var got []string
	pieces, whole := 0, false
	for len(got) < len(keys) || !whole {
		r := c.recv()
		if r.WatchId == 1 {
			whole = len(r.Events) == len(keys) && !r.Fragment
			if !whole {
				t.Fatalf("got %v", r)
			}
			continue
		}
		pieces++
		for _, e := range r.Events {
			got = append(got, string(e.Kv.Key))
		}
		if last := len(got) == len(keys); r.Fragment == last || proto.Size(r) >= limit && len(r.Events) > 1 {
			t.Fatalf("fragment %v of %d bytes after %d events", r.Fragment, proto.Size(r), len(got))
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(keys) || pieces < 4 {
		t.Errorf("%d pieces with %v", pieces, got)
	}
}

// TestWatchProgressNotify: a quiet watch is told how far it is, one that had
// events is not.
func TestWatchProgressNotify(t *testing.T) {
	w := newWatchBench(t, 1<<20)
	c := w.open()
	c.create(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
	c.create(&pb.WatchCreateRequest{Key: []byte("b"), ProgressNotify: true})
	c.create(&pb.WatchCreateRequest{Key: []byte("c")})
	for range 3 {
		c.recv()
	}
	w.put("a")
	c.recv()
	w.clock.Advance(time.Minute)
	c.expect(&pb.WatchResponse{WatchId: 1}, 2)
	c.progress() // and nothing else was said meanwhile
	c.expect(&pb.WatchResponse{WatchId: -1}, 2)
}

// TestWatchEnds: half-closed streams go on, a client that leaves is told so, and
// the store forgets its watches.
func TestWatchEnds(t *testing.T) {
	w := newWatchBench(t, 1<<20)
	c := w.open()
	c.create(&pb.WatchCreateRequest{Key: []byte("a")})
	c.recv()
	if err := c.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	w.put("a")
	if r := c.recv(); len(r.Events) != 1 {
		t.Fatalf("got %v", r)
	}
	c.cancel()
	if _, err := c.stream.Recv(); status.Code(err) != codes.Canceled {
		t.Fatalf("got %v", err)
	}
	deadline := time.Now().Add(time.Minute)
	for w.store.WatchStats().Streams > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the stream is still there: %+v", w.store.WatchStats())
		}
		time.Sleep(time.Millisecond)
	}
}

// TestWatchEndTexts holds the ends that the client does not cause to etcd's.
func TestWatchEndTexts(t *testing.T) {
	cut, cancel := context.WithCancelCause(context.Background())
	cancel(api.ErrNoLeader)
	gone, leave := context.WithCancel(context.Background())
	leave()
	for _, tc := range []struct {
		ctx  context.Context
		err  error
		want error
	}{
		{cut, context.Canceled, api.ErrNoLeader},
		{gone, context.Canceled, api.ErrWatchCanceled},
		{gone, io.ErrUnexpectedEOF, api.ErrWatchCanceled},
		{context.Background(), mvcc.ErrStreamClosed, api.ErrStopped},
		{context.Background(), fmt.Errorf("reading: %w", mvcc.ErrCorrupt), api.ErrCorrupt},
	} {
		if got := watchEnd(tc.ctx, tc.err); got != tc.want {
			t.Errorf("%v: got %v, want %v", tc.err, got, tc.want)
		}
	}
}
