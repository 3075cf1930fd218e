package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/mvcc"
)

// BenchmarkWatchRPC measures the server's share of the CPU for an event that
// reaches a client over gRPC: the client is another process. One op is one
// event delivered (prefix) or one write with one delivery (keys).
func BenchmarkWatchRPC(b *testing.B) {
	for _, tc := range []struct {
		name            string
		conns, watchers int // watchers in all
		single          bool
		pace            time.Duration // between writes; 0: as fast as they are taken
	}{
		{"prefix/1000watchers/1conn", 1, 1000, false, 0},
		{"prefix/1000watchers/10conns", 10, 1000, false, 0},
		{"prefix/1000watchers/100conns", 100, 1000, false, 0},
		{"prefix/1000watchers/10conns/paced", 10, 1000, false, 5 * time.Millisecond},
		{"keys/10000watchers/10conns", 10, 10000, true, 0},
	} {
		b.Run(tc.name, func(b *testing.B) { benchWatchRPC(b, tc.conns, tc.watchers, tc.single, tc.pace) })
	}
}

func benchWatchRPC(b *testing.B, conns, watchers int, single bool, pace time.Duration) {
	w := newWatchBench(b, 1<<21)
	child := startWatchClient(b, w.addr, conns, watchers, single)
	// One line says that all watches are there, then one for each answer to how
	// many events have come.
	child.ask()
	writes := max(b.N, 1)
	if !single {
		writes = max(b.N/watchers, 1)
	}
	want := writes
	if !single {
		want *= watchers
	}
	value := make([]byte, 256)
	b.ResetTimer()
	before := cpuTime(b)
	for i := range writes {
		key := []byte("k")
		if single {
			key = fmt.Appendf(nil, "k%d", i%watchers)
		}
		w.write(func(tx *mvcc.WriteTxn) { tx.Put(key, value, 0) })
		if pace > 0 {
			time.Sleep(pace)
		}
	}
	for child.ask() < want {
		time.Sleep(time.Millisecond)
	}
	spent := cpuTime(b) - before
	b.ReportMetric(float64(spent.Nanoseconds())/float64(want), "cpu-ns/event")
	b.ReportMetric(0, "ns/op")
	b.StopTimer()
	child.stop()
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watchClient is the other process.
type watchClient struct {
	b   *testing.B
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

const watchClientEnv = "KEELSON_WATCH_CLIENT"

func startWatchClient(b *testing.B, addr string, conns, watchers int, single bool) *watchClient {
	cmd := exec.Command(os.Args[0], "-test.run=TestWatchClientProcess")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%d,%d,%v", watchClientEnv, addr, conns, watchers, single))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return &watchClient{b, cmd, in, bufio.NewScanner(out)}
}

// ask returns how many events the client has got.
func (c *watchClient) ask() int {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.b.Fatal(err)
	}
	for c.out.Scan() {
		if n, err := strconv.Atoi(c.out.Text()); err == nil {
			return n
		}
	}
	c.b.Fatal("the client process is gone")
	return 0
}

func (c *watchClient) stop() {
	if err := c.in.Close(); err != nil {
		c.b.Error(err)
	}
	if err := c.cmd.Wait(); err != nil {
		c.b.Error(err)
	}
}

// TestWatchClientProcess is no test but the client of the benchmark, when it is
// started as one.
func TestWatchClientProcess(t *testing.T) {
	spec := strings.Split(os.Getenv(watchClientEnv), ",")
	if len(spec) != 4 {
		return
	}
	conns, err1 := strconv.Atoi(spec[1])
	watchers, err2 := strconv.Atoi(spec[2])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	var events atomic.Int64
	var created sync.WaitGroup
	created.Add(watchers)
	for c := range conns {
		conn, err := grpc.NewClient(spec[0], grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(countingCodec{})))
		if err != nil {
			t.Fatal(err)
		}
		stream, err := pb.NewWatchClient(conn).Watch(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				var n counted
				if err := stream.RecvMsg(&n); err != nil {
					return
				}
				if n == 0 {
					created.Done()
				}
				events.Add(int64(n))
			}
		}()
		for i := c; i < watchers; i += conns {
			r := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")}
			if spec[3] == "true" {
				r = &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "k%d", i)}
			}
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	created.Wait()
	for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
		fmt.Println(events.Load())
	}
}

// counted is how many events an answer has.
type counted int

type countingCodec struct{}

func (countingCodec) Name() string { return "proto" }

func (countingCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Unmarshal skips through the fields: the client should cost little.
func (countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	n := v.(*counted)
	for b := data.Materialize(); len(b) > 0; {
		tag, k := binary.Uvarint(b)
		size, m := binary.Uvarint(b[k:])
		if b = b[k+m:]; tag&7 == 2 {
			b = b[size:]
		}
		if tag>>3 == 11 {
			*n++
		}
	}
	return nil
}
