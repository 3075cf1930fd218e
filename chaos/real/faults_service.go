//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

var semanticsFaults = []*Fault{
	{Name: "compaction", Row: 44, About: "history is compacted every 100 ms", Times: 4, Inject: compaction},
	{Name: "defragmentation", Row: 45, About: "every member is defragmented under load", Inject: defragmentation},
	{Name: "bad-requests", Row: 48, About: "requests that must be refused", Inject: badRequests},
}

var loadFaults = []*Fault{
	{Name: "connections", Row: 50, About: "2,000 idle connections to a member", Inject: manyConnections},
	{Name: "replies-lost", Row: 51, About: "what members answer to clients is lost", Inject: repliesLost},
}

var resourceFaults = []*Fault{
	{Name: "no-memory", Row: 57, About: "the kernel kills a member for its memory", Inject: noMemory},
	{Name: "no-files", Row: 58, About: "a member can open no more files", Inject: noFiles},
}

// admin asks one member, without a library that retries.
func (r *Run) admin(m *Member, f func(context.Context, pb.ClusterClient, pb.MaintenanceClient, pb.KVClient) error) error {
	conn, err := r.dial(m.endpoint())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return f(ctx, pb.NewClusterClient(conn), pb.NewMaintenanceClient(conn), pb.NewKVClient(conn))
}

func compaction(r *Run) error {
	for range 10 {
		if err := r.compactSome(); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// keptRevisions is what a compaction under load leaves, so that watches are not
// overtaken: a second or so.
const keptRevisions = 600

// compactBehind compacts what the client's watch has seen, which ends when it is
// overtaken; false: it did not happen.
func (r *Run) compactBehind() bool {
	st, err := r.some().status()
	if err != nil || st.Header.Revision <= keptRevisions {
		return false
	}
	rev := min(st.Header.Revision-keptRevisions, r.library.seen.Load())
	op := r.mine.do("etcdserverpb.KV/Compact", &pb.CompactionRequest{Revision: rev, Physical: r.rand.IntN(2) == 0})
	return op.Outcome == history.OK
}

// compactSome waits until there is history to compact.
func (r *Run) compactSome() error {
	return within(patience, func() error {
		if !r.compactBehind() {
			return fmt.Errorf("%w: there is too little history", errNothing)
		}
		return nil
	})
}

func defragmentation(r *Run) error {
	for _, m := range r.shuffled() {
		err := r.admin(m, func(ctx context.Context, _ pb.ClusterClient, c pb.MaintenanceClient, _ pb.KVClient) error {
			_, err := c.Defragment(ctx, &pb.DefragmentRequest{})
			return err
		})
		if err != nil {
			return fmt.Errorf("O9: defragment %s: %w", m.Name, err)
		}
	}
	return nil
}

// badRequests demands a refusal of each before it gets into the log, and that the member is there afterwards.
func badRequests(r *Run) error {
	ops := make([]*pb.RequestOp, 200)
	for i := range ops {
		ops[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
	}
	return r.admin(r.some(), func(ctx context.Context, _ pb.ClusterClient, _ pb.MaintenanceClient, kv pb.KVClient) error {
		for what, ask := range map[string]func() error{
			"no key": func() error { _, err := kv.Put(ctx, &pb.PutRequest{}); return err },
			"a huge value": func() error {
				_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 2<<20)})
				return err
			},
			"too many ops": func() error { _, err := kv.Txn(ctx, &pb.TxnRequest{Success: ops}); return err },
			"a future read": func() error {
				_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 1 << 60})
				return err
			},
		} {
			switch err := ask(); status.Code(err) {
			case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.ResourceExhausted:
			default:
				return fmt.Errorf("O13: %s: %v", what, err)
			}
		}
		return nil
	})
}

func manyConnections(r *Run) error {
	m := r.some()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for range 2000 {
		c, err := net.DialTimeout("tcp", m.endpoint(), 2*time.Second)
		if err != nil {
			break // it may refuse, and goes on serving
		}
		open = append(open, c)
	}
	if len(open) < 500 {
		return fmt.Errorf("%w: %d connections", errNothing, len(open))
	}
	return r.serves()
}

func repliesLost(r *Run) error {
	for _, m := range r.members() {
		r.net.Set(m.Addr, r.clients, Link{Cut: true})
	}
	return r.while(r.between(100*time.Millisecond, 2*time.Second), r.lost)
}

func noMemory(r *Run) error {
	m := r.some()
	m.expect("no memory")
	g, err := r.group(m, "memory")
	if err != nil {
		m.expect("")
		return err
	}
	err = g.set("memory.limit_in_bytes", "1048576") // what it uses counts from now on
	if err == nil {
		err = m.wait(20 * time.Second)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errNothing, errors.Join(err, m.kill("no memory")))
	}
	return errors.Join(err, g.remove())
}

// noFiles takes a running member's descriptors, and gives them back.
func noFiles(r *Run) error {
	m := r.some()
	var was unix.Rlimit
	if err := unix.Prlimit(m.pid(), unix.RLIMIT_NOFILE, nil, &was); err != nil {
		return err
	}
	few := unix.Rlimit{Cur: 16, Max: was.Max}
	if err := unix.Prlimit(m.pid(), unix.RLIMIT_NOFILE, &few, nil); err != nil {
		return err
	}
	refused := 0
	for range 100 {
		c, err := net.DialTimeout("tcp", m.endpoint(), time.Second)
		if err != nil {
			refused++
			continue
		}
		c.Close()
	}
	err := r.serves()
	if e := unix.Prlimit(m.pid(), unix.RLIMIT_NOFILE, &was, nil); e != nil && !m.down() {
		err = errors.Join(err, e)
	}
	if err == nil && m.down() {
		err = fmt.Errorf("O12: it ended without descriptors")
	}
	return err
}
