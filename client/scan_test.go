package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/client"
)

// fill writes n keys of size bytes below /k/.
func fill(ctx context.Context, t testing.TB, c *client.Client, n, size int) {
	t.Helper()
	for i := 0; i < n; {
		txn := c.Txn()
		for range min(100, n-i) {
			txn.Then(client.OpPut(fmt.Sprintf("/k/%06d", i), bytes.Repeat([]byte{byte(i)}, size)))
			i++
		}
		if _, err := txn.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// withoutStreams is a server that has no RangeStream.
func withoutStreams(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, s grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if d.StreamName == "RangeStream" {
		return nil, status.Error(codes.Unimplemented, "unknown method RangeStream")
	}
	return s(ctx, d, cc, method, opts...)
}

func TestScan(t *testing.T) {
	m := startMember(t)
	const n = 3000
	fill(testContext(t), t, open(t, client.Config{Endpoints: []string{m.addr}}), n, 2000)
	for name, opt := range map[string][]grpc.DialOption{
		"stream": nil,
		"pages":  {grpc.WithStreamInterceptor(withoutStreams)},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, client.Config{Endpoints: []string{m.addr}, DialOptions: opt})
			ctx := testContext(t)
			p, err := c.List(ctx, client.All(), client.KeysOnly())
			if err != nil {
				t.Fatal(err)
			}
			for _, limit := range []int64{0, 1, 255, 256, 257, 2000, n, n + 1} {
				var rev client.Revision
				got := 0
				for kv, err := range c.Scan(ctx, client.Prefix("/k/"), client.Limit(limit), client.ReadRevision(&rev)) {
					if err != nil {
						t.Fatal(err)
					}
					if kv.Key != p.KVs[got].Key || len(kv.Value) != 2000 {
						t.Fatalf("at %d: %q with %d bytes", got, kv.Key, len(kv.Value))
					}
					if got == 10 { // a change in between is not seen
						if _, err := c.Put(ctx, "/k/zz", nil); err != nil {
							t.Fatal(err)
						}
						if _, err := c.Delete(ctx, "/k/zz"); err != nil {
							t.Fatal(err)
						}
					}
					got++
				}
				want := n
				if limit > 0 {
					want = min(n, int(limit))
				}
				if got != want || rev < p.Revision {
					t.Errorf("limit %d: %d keys at revision %d", limit, got, rev)
				}
			}
			for range c.Scan(ctx, client.All()) {
				break // ends the stream
			}
			for _, err := range c.Scan(ctx, client.All(), client.Descending(client.ByKey)) {
				if err == nil {
					t.Error("a scan cannot go backwards")
				}
			}
		})
	}
}

// TestScanResumes: a scan whose streams are cut again and again is complete.
func TestScanResumes(t *testing.T) {
	m := startMember(t)
	fill(testContext(t), t, open(t, client.Config{Endpoints: []string{m.addr}}), 3000, 4000)
	a, b := newProxy(t, m.addr), newProxy(t, m.addr)
	var bytes, cuts atomic.Int64
	lose := func(piece []byte) bool {
		if bytes.Add(int64(len(piece))) < 3<<20 {
			return true
		}
		bytes.Store(0)
		cuts.Add(1)
		return false
	}
	a.answers.Store(&lose)
	b.answers.Store(&lose)
	c := open(t, client.Config{Endpoints: []string{a.addr(), b.addr()}})
	var keys []string
	for kv, err := range c.Scan(testContext(t), client.All()) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, kv.Key)
	}
	if len(keys) != 3000 || !slices.IsSorted(keys) || len(slices.Compact(keys)) != 3000 {
		t.Errorf("%d keys", len(keys))
	}
	if cuts.Load() == 0 {
		t.Error("nothing was cut: the test shows nothing")
	}
}

// TestScanCompacted: a reader that is overtaken by a compaction is told so.
func TestScanCompacted(t *testing.T) {
	c := open(t, client.Config{Endpoints: []string{startMember(t).addr}, DialOptions: []grpc.DialOption{grpc.WithStreamInterceptor(withoutStreams)}})
	ctx := testContext(t)
	fill(ctx, t, c, 1000, 10)
	got := 0
	for _, err := range c.Scan(ctx, client.All()) {
		if err != nil {
			if !errors.Is(err, client.ErrCompacted) {
				t.Fatal(err)
			}
			return
		}
		if got++; got == 1 {
			rev, err := c.Put(ctx, "/k/000999", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Compact(ctx, rev, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Fatalf("read %d keys of a compacted revision", got)
}
