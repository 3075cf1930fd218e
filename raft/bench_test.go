package raft

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/transport"
	"github.com/keelson-io/keelson/raft/vfs"
)

// counter is a state machine that costs nothing.
type counter struct {
	index   atomic.Uint64
	entries atomic.Int64
}

func (c *counter) Apply(entries []Entry) {
	c.entries.Add(int64(len(entries)))
	c.index.Store(uint64(entries[len(entries)-1].Index))
}
func (c *counter) Applied() (api.Index, api.Term, *raftpb.ConfState) { return 0, 0, nil }
func (c *counter) Durable() api.Index                                { return api.Index(c.index.Load()) }
func (c *counter) Snapshot() (transport.Snapshot, error)             { return nil, os.ErrInvalid }
func (c *counter) Install(transport.SnapshotMeta, string) error      { return os.ErrInvalid }

// benchCluster runs members on the real file system; the first result leads.
func benchCluster(b *testing.B, n int) (nodes []*Node, machines []*counter) {
	net := transport.NewMemoryNetwork(1, clock.System())
	var peers []Peer
	for i := 1; i <= n; i++ {
		peers = append(peers, Peer{ID: api.MemberID(i)})
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, p := range peers {
		dir := filepath.Join(b.TempDir(), "wal")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		m := &counter{}
		node, err := Open(Config{
			ID: p.ID, Cluster: 1, Peers: peers, Bootstrap: true, FS: vfs.OS(), Dir: dir,
			Clock: clock.System(), Rand: rand.NewPCG(uint64(p.ID), 1), Transport: net.Node(p.ID), StateMachine: m,
		})
		if err != nil {
			b.Fatal(err)
		}
		nodes, machines = append(nodes, node), append(machines, m)
		running.Go(func() { _ = node.Run(ctx) })
	}
	b.Cleanup(func() { stop(); running.Wait() })
	for {
		for i, node := range nodes {
			if node.Status().Role == Leader {
				nodes[0], nodes[i] = nodes[i], nodes[0]
				machines[0], machines[i] = machines[i], machines[0]
				return nodes, machines
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPropose: commands of 300 bytes. cpu-µs/op is of the whole process:
// all members, the callers and the in-memory network.
func BenchmarkPropose(b *testing.B) {
	for _, members := range []int{1, 3} {
		for _, callers := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("members=%d/callers=%d", members, callers), func(b *testing.B) {
				nodes, machines := benchCluster(b, members)
				benchPropose(b, nodes[:1], callers)
				b.ReportMetric(float64(b.N)/float64(machines[0].entries.Load()), "cmds/entry")
			})
		}
	}
	b.Run("members=3/callers=1000/everywhere", func(b *testing.B) {
		nodes, _ := benchCluster(b, 3)
		benchPropose(b, nodes, 1000)
	})
}

func benchPropose(b *testing.B, nodes []*Node, callers int) {
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, callers)
	var wg sync.WaitGroup
	cpu := cpuTime()
	b.ResetTimer()
	for i := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				begin := time.Now()
				if _, err := nodes[i%len(nodes)].Propose(context.Background(), 1, "", make([]byte, 300)); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

func BenchmarkReadBarrier(b *testing.B) {
	for _, members := range []int{1, 3} {
		for _, callers := range []int{1, 1000} {
			b.Run(fmt.Sprintf("members=%d/callers=%d", members, callers), func(b *testing.B) {
				nodes, _ := benchCluster(b, members)
				if err := nodes[0].ReadBarrier(context.Background()); err != nil {
					b.Fatal(err)
				}
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				cpu := cpuTime()
				b.ResetTimer()
				for range callers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if err := nodes[0].ReadBarrier(context.Background()); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
			})
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	var cmds []*Command
	for i := range 250 {
		cmds = append(cmds, &Command{Kind: 1, ID: uint64(i) << 40, Principal: "root", Body: make([]byte, 300)})
	}
	data := appendCommandsFrame(nil, frameKey{1 << 60, 5}, cmds)
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			data = appendCommandsFrame(data[:0], frameKey{1 << 60, 5}, cmds)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeFrame(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := checkFrame(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
