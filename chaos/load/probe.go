package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// What probes cost at most.
const (
	probeTimeout = 3 * time.Second
	maxProbes    = 200 // of one member that wait for an answer
	observeEvery = 50 * time.Millisecond
)

// probe writes through one member again and again, without a library that helps,
// so that availability shows. Probes do not wait for each other.
func (l *Load) probe(ctx context.Context, client int, conn Conn) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, maxProbes)
	for n := 0; ; n++ {
		pause(l.stopped, l.cfg.ProbeEvery)
		if l.stopped.Err() != nil {
			return
		}
		req := &pb.PutRequest{Key: []byte("probe/" + conn.Name), Value: fmt.Appendf(nil, "%d:%d", client, n)}
		select {
		case room <- struct{}{}:
			wg.Go(func() {
				op := l.ask(ctx, probeTimeout, client, conn, "etcdserverpb.KV/Put", req)
				l.rec.Probe(history.Probe{Member: conn.Member, Call: op.Call, Return: op.Return, OK: op.Outcome == history.OK})
				<-room
			})
		default:
		}
	}
}

// observe writes down whom a member believes to lead, when that changes.
func (l *Load) observe(ctx context.Context, conn Conn) {
	var last history.Leader
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, probeTimeout)
		s, err := pb.NewMaintenanceClient(conn).Status(call, &pb.StatusRequest{})
		cancel()
		now := history.Leader{Member: conn.Member}
		if err == nil {
			now.Leader, now.Term = s.Leader, s.RaftTerm
		}
		if now != last {
			last = now
			now.At = l.rec.Now()
			l.rec.Leader(now)
		}
		pause(ctx, observeEvery)
	}
}
