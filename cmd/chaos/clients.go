package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// clients is a result file of `chaos clients`.
type clients struct {
	stamp
	Conns, Watches, Dead int
	Writes               int // of a KiB, each to a key that all dead readers watch
	Events               int64
	Took                 time.Duration
	// Memory of the process without mapped files, in bytes: alone, with all
	// connections, and the medians of the first and last quarters of the load.
	Alone, Connected, First, Last int64
	Course                        []int64 // in MiB, every ten seconds
}

func (c *clients) figure() string {
	return fmt.Sprintf("%d connections, %d watches, %d that do not read: %d MiB in the first quarter of %v of writes, %d MiB in the last (%+.0f%%); every ten seconds %v",
		c.Conns, c.Watches, c.Dead, c.First>>20, c.Took.Round(time.Second), c.Last>>20, 100*(float64(c.Last)/float64(max(c.First, 1))-1), c.Course)
}

// manyClients measures a member's memory with many connections and watches, some
// of whose readers never read, while somebody writes what they watch.
func manyClients(args []string) error {
	f := flags("clients")
	kvd := f.String("kvd", "bin/kvd", "the program")
	conns := f.Int("conns", 5000, "connections")
	watches := f.Int("watches", 10000, "watches, spread over the connections")
	dead := f.Int("dead", 100, "connections whose watch of all that is written is never read")
	rate := f.Int("rate", 200, "writes a second")
	d := f.Duration("for", 3*time.Minute, "how long to write")
	port := f.Int("port", 12379, "the first of two ports on loopback")
	results := f.String("results", "", "write the figures to this file, as JSON")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *conns < 1 || *watches < 0 || *dead < 0 || *rate < 1 {
		return errors.New("-conns and -rate are at least 1, -watches and -dead at least 0")
	}
	dir, err := os.MkdirTemp("", "clients")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	endpoint, peer := fmt.Sprint("127.0.0.1:", *port), fmt.Sprint("http://127.0.0.1:", *port+1)
	member := exec.Command(*kvd, "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", "http://"+endpoint, "--advertise-client-urls", "http://"+endpoint,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--log-level", "error")
	member.Stderr = os.Stderr
	if err := member.Start(); err != nil {
		return err
	}
	defer func() { _ = errors.Join(member.Process.Kill(), member.Wait()) }() // it may have ended

	c := clients{stamp: newStamp("chaos clients"), Conns: *conns, Watches: *watches, Dead: *dead}
	crowd := &crowd{endpoint: endpoint, pid: member.Process.Pid}
	defer crowd.leave()
	if err := crowd.measure(&c, *rate, *d); err != nil {
		return err
	}
	fmt.Printf("alone %d MiB, connected %d MiB; %d writes, %d events\n%s\n", c.Alone>>20, c.Connected>>20, c.Writes, c.Events, c.figure())
	if *results == "" {
		return nil
	}
	return writeJSON(*results, c)
}

// crowd is the clients.
type crowd struct {
	endpoint string
	pid      int
	conns    []*grpc.ClientConn
	readers  sync.WaitGroup
	events   atomic.Int64
}

func (c *crowd) leave() {
	for _, conn := range c.conns {
		conn.Close()
	}
	c.readers.Wait()
}

func (c *crowd) dial() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+c.endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

// hot is what dead readers watch.
const hot = "hot"

func (c *crowd) measure(out *clients, rate int, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d+5*time.Minute)
	defer cancel()
	conn, err := c.dial()
	if err != nil {
		return err
	}
	kv := pb.NewKVClient(conn)
	if err := warm(ctx, kv); err != nil {
		return err
	}
	if out.Alone, err = memoryOf(c.pid); err != nil {
		return err
	}
	for n := range out.Conns {
		keys := []string{hot}
		if n >= out.Dead {
			keys = nil
			for i := n - out.Dead; i < out.Watches; i += out.Conns - out.Dead {
				keys = append(keys, fmt.Sprint("k", i))
			}
		}
		if err := c.watch(ctx, keys, n >= out.Dead); err != nil {
			return fmt.Errorf("connection %d: %w", n, err)
		}
	}
	if out.Connected, err = memoryOf(c.pid); err != nil {
		return err
	}
	begin := time.Now()
	var memory []int64
	for tick := time.NewTicker(time.Second / time.Duration(rate)); time.Since(begin) < d; <-tick.C {
		key := hot
		if out.Writes%4 == 0 {
			key = fmt.Sprint("k", rand.IntN(max(out.Watches, 1)))
		}
		resp, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: make([]byte, 1024)})
		if err != nil {
			return err
		}
		if out.Writes++; out.Writes%rate == 0 {
			now, err := memoryOf(c.pid)
			if err != nil {
				return err
			}
			if memory = append(memory, now); len(memory)%10 == 1 {
				out.Course = append(out.Course, now>>20)
			}
		}
		if out.Writes%(10*rate) == 0 { // what is kept of history does not count
			if _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: resp.Header.Revision}); err != nil {
				return err
			}
		}
	}
	out.Took, out.Events = time.Since(begin), c.events.Load()
	if len(memory) < 8 {
		return errors.New("the run was too short to say anything")
	}
	quarter := len(memory) / 4
	out.First, out.Last = median(memory[:quarter]), median(memory[len(memory)-quarter:])
	return nil
}

// warm fills what a member keeps of its newest log, whatever else happens.
func warm(ctx context.Context, kv pb.KVClient) error {
	for range 2500 {
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(hot), Value: make([]byte, 16<<10)}); err != nil {
			return err
		}
	}
	return nil
}

// watch opens a connection with a stream of watches.
func (c *crowd) watch(ctx context.Context, keys []string, reads bool) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		create := &pb.WatchCreateRequest{Key: []byte(key)}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	if !reads {
		return nil
	}
	c.readers.Go(func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				return // the connection was closed
			}
			c.events.Add(int64(len(resp.Events)))
		}
	})
	return nil
}

// memoryOf is a process's memory without mapped files.
func memoryOf(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("/proc does not tell the memory of a process")
}

func median[T cmp.Ordered](of []T) T {
	s := slices.Sorted(slices.Values(of))
	return s[len(s)/2]
}
