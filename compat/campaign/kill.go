package campaign

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/compat/cluster"
)

// probeEvery is how often a put is sent to each survivor until one is
// acknowledged; an earlier one may have been dropped for lack of a leader.
const (
	probeEvery   = 5 * time.Millisecond
	probeTimeout = 30 * time.Second
)

// Kill is one kill of a leader.
type Kill struct {
	Victim   string
	FirstAck time.Duration // of a put sent to another member after the kill
}

// prober holds connections to all members, made before the kill.
type prober struct {
	cluster *cluster.Cluster
	conns   map[*cluster.Member]*grpc.ClientConn
	n       int
}

func newProber(c *cluster.Cluster) (*prober, error) {
	p := &prober{cluster: c, conns: map[*cluster.Member]*grpc.ClientConn{}}
	for _, m := range c.Members {
		conn, err := m.Dial()
		if err != nil {
			return nil, err
		}
		p.conns[m] = conn
	}
	return p, nil
}

func (p *prober) close() {
	for _, c := range p.conns {
		c.Close()
	}
}

// warm makes sure that the connections stand.
func (p *prober) warm(ctx context.Context) error {
	for _, conn := range p.conns {
		_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("warm")}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
	}
	return nil
}

// KillLeader kills the leader with SIGKILL and measures the time to the first
// acknowledged write elsewhere. The victim stays down.
func (p *prober) killLeader(ctx context.Context) (*cluster.Member, Kill, error) {
	if err := p.warm(ctx); err != nil {
		return nil, Kill{}, err
	}
	leader, err := p.cluster.Leader(ctx)
	if err != nil {
		return nil, Kill{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	began := time.Now()
	leader.Kill()
	first := make(chan time.Duration, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // before the wait: probes that nobody needs any more
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		for m, conn := range p.conns {
			if m == leader {
				continue
			}
			p.n++
			key := fmt.Appendf(nil, "probe/%d", p.n)
			wg.Go(func() {
				_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: key, Value: key})
				if err != nil {
					return
				}
				select {
				case first <- time.Since(began):
				default:
				}
			})
		}
		select {
		case took := <-first:
			return leader, Kill{leader.Name, took}, nil
		case <-ctx.Done():
			return leader, Kill{}, fmt.Errorf("no write acknowledged within %v of the kill of %s", probeTimeout, leader.Name)
		case <-tick.C:
		}
	}
}

// MeasureFailover kills the leader n times, with no other load, and restarts it
// each time.
func MeasureFailover(ctx context.Context, c *cluster.Cluster, n int) ([]Kill, error) {
	p, err := newProber(c)
	if err != nil {
		return nil, err
	}
	defer p.close()
	var kills []Kill
	for range n {
		victim, k, err := p.killLeader(ctx)
		if err != nil {
			return kills, err
		}
		kills = append(kills, k)
		if err := victim.Start(); err != nil {
			return kills, err
		}
		if err := c.Ready(ctx); err != nil {
			return kills, err
		}
	}
	return kills, nil
}
