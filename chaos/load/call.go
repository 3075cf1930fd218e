package load

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// call asks once and writes down what became of it.
func (l *Load) call(ctx context.Context, client int, conn Conn, method string, req proto.Message) *history.Op {
	return l.ask(ctx, l.cfg.Timeout, client, conn, method, req)
}

func (l *Load) ask(ctx context.Context, timeout time.Duration, client int, conn Conn, method string, req proto.Message) *history.Op {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	call := l.rec.Call(client, conn.Member, conn.Name, method, req)
	resp, err := conn.Do(ctx, method, req)
	op := call.Return(resp, conn.Outcome(err), err)
	if op.Outcome == history.OK {
		l.acked.Add(1)
	}
	return op
}

// compact gives up history again and again, but nothing that a collector has not
// been told of.
func (l *Load) compact(ctx context.Context, client int) {
	for n := 0; ; n++ {
		pause(l.stopped, l.cfg.CompactEvery)
		if l.stopped.Err() != nil {
			return
		}
		rev := l.marks[0].Load()
		for _, m := range l.marks {
			rev = min(rev, m.Load())
		}
		if rev -= l.cfg.KeepRevisions; rev > 1 {
			l.call(ctx, client, l.members[n%len(l.members)], "etcdserverpb.KV/Compact", &pb.CompactionRequest{Revision: rev, Physical: n%2 == 0})
		}
	}
}
