package maintenance

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

const noSpace = "ResourceExhausted: etcdserver: mvcc: database space exceeded"

// TestFull fills both stores to a small quota: both refuse with the same words
// and raise an alarm. etcd stays full until somebody compacts, defragments and
// disarms; kvd serves writes again once keys were deleted and history compacted.
func TestFull(t *testing.T) {
	ctx := limited(t)
	for _, name := range []string{"etcd", "kvd"} {
		s := start(ctx, t, name, cluster.Options{NoSync: true, Args: []string{"--quota-backend-bytes=8388608"}})
		value := make([]byte, 64<<10)
		var err error
		n := 0
		for ; err == nil && n < 300; n++ {
			_, err = s.kv.Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, "k", n), Value: value})
		}
		if verdict(err) != noSpace || n < 60 {
			t.Fatalf("%s: %d values, then %s", name, n, verdict(err))
		}
		list, err := s.admin.Alarm(ctx, &pb.AlarmRequest{})
		if err != nil || len(list.Alarms) != 1 || list.Alarms[0].MemberID != list.Header.MemberId || list.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
			t.Errorf("%s: alarms %v, %v", name, list, err)
		}
		del, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
		if err != nil {
			t.Fatalf("%s: delete: %v", name, err)
		}
		if _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: del.Header.Revision, Physical: true}); err != nil {
			t.Fatalf("%s: compact: %v", name, err)
		}
		if name == "etcd" {
			continue
		}
		eventually(ctx, t, "space", func() bool {
			_, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: value})
			if err != nil && verdict(err) != noSpace {
				t.Fatal(err)
			}
			return err == nil
		})
		if list, err := s.admin.Alarm(ctx, &pb.AlarmRequest{}); err != nil || len(list.Alarms) != 0 {
			t.Errorf("alarms %v, %v", list, err)
		}
	}
}

// TestDefragmentUnderLoad rewrites a file while clients write, and prints how
// long they waited before and meanwhile. DEFRAG_MB sets the size of the file.
func TestDefragmentUnderLoad(t *testing.T) {
	size := 96
	if v := os.Getenv("DEFRAG_MB"); v != "" {
		var err error
		if size, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(120+size/2)*time.Second)
	defer cancel()
	s := start(ctx, t, "kvd", cluster.Options{Args: []string{"--quota-backend-bytes=-1", "--auto-defrag-percent=0"}})
	loosen(ctx, t, s, size)
	w := startWriters(ctx, t, s)
	w.measure()
	for range 20 {
		time.Sleep(100 * time.Millisecond) // the quiet time that is measured
	}
	quiet := w.measure()
	before := statusOf(ctx, t, s)
	began := time.Now()
	if _, err := s.admin.Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	busy := w.measure()
	n := w.end()
	after := statusOf(ctx, t, s)
	t.Logf("%d MiB became %d MiB in %v; writes before: %v; meanwhile: %v", before.DbSize>>20, after.DbSize>>20, took.Round(time.Millisecond), quiet, busy)
	if after.DbSize > before.DbSize*3/4 {
		t.Errorf("the file has %d bytes of %d", after.DbSize, before.DbSize)
	}
	// A rewrite that stops writers lets each end the write that it was at, and one more.
	if busy.n <= 2*writing {
		t.Errorf("during a rewrite of %v: %v", took, busy)
	}
	resp, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("w"), RangeEnd: []byte("x"), CountOnly: true})
	if err != nil || resp.Count != int64(n) {
		t.Errorf("%d of %d writes are there, %v", resp.GetCount(), n, err)
	}
}

func statusOf(ctx context.Context, t *testing.T, s *side) *pb.StatusResponse {
	t.Helper()
	r, err := s.admin.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// loosen leaves a file of about size MiB of which half is free.
func loosen(ctx context.Context, t *testing.T, s *side, size int) {
	t.Helper()
	value := make([]byte, 32<<10)
	for i := range size * 32 {
		if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "old%d/%07d", i%2, i), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	del, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("old1"), RangeEnd: []byte("old2")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: del.Header.Revision}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "the compaction", func() bool {
		r := statusOf(ctx, t, s)
		return r.DbSizeInUse < r.DbSize*2/3
	})
}

// writing is how many clients write.
const writing = 8

// writers put keys of their own as fast as they are answered.
type writers struct {
	mu    sync.Mutex
	times []time.Duration
	total int
	stop  context.CancelFunc
	wait  sync.WaitGroup
}

func startWriters(ctx context.Context, t *testing.T, s *side) *writers {
	ctx, stop := context.WithCancel(ctx)
	w := &writers{stop: stop}
	for c := range writing {
		w.wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				began := time.Now()
				// Its own context: a put that was sent counts, so none is cut off.
				_, err := s.kv.Put(context.WithoutCancel(ctx), &pb.PutRequest{Key: fmt.Appendf(nil, "w%d/%d", c, i), Value: make([]byte, 256)})
				if err != nil {
					t.Error(err)
					return
				}
				w.mu.Lock()
				w.times = append(w.times, time.Since(began))
				w.total++
				w.mu.Unlock()
			}
		})
	}
	return w
}

func (w *writers) end() int {
	w.stop()
	w.wait.Wait()
	return w.total
}

// waits sums up how long writes took.
type waits struct {
	n                 int
	p50, p99, longest time.Duration
}

func (w waits) String() string {
	return fmt.Sprintf("%d, p50 %v, p99 %v, longest %v", w.n, w.p50.Round(10*time.Microsecond), w.p99.Round(10*time.Microsecond), w.longest.Round(10*time.Microsecond))
}

// measure sums up the writes since the last call.
func (w *writers) measure() waits {
	w.mu.Lock()
	times := w.times
	w.times = nil
	w.mu.Unlock()
	if len(times) == 0 {
		return waits{}
	}
	slices.Sort(times)
	return waits{len(times), times[len(times)/2], times[len(times)*99/100], times[len(times)-1]}
}
