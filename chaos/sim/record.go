package sim

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/server"
)

// observe sees what the state machine is about to apply.
func (m *member) observe(entries []raft.Entry) {
	for _, e := range entries {
		fresh, err := m.s.watch.Applies(m.key(), uint64(e.Index), uint64(e.Term), content(e))
		m.s.must("O6", err)
		if fresh {
			m.s.record(e)
		}
	}
}

// content is what an entry asks for, in bytes.
func content(e raft.Entry) (b []byte) {
	for _, c := range e.Commands {
		b = fmt.Appendf(b, "%d %d %q ", c.Kind, c.ID, c.Principal)
		b = append(b, c.Body...)
	}
	if e.Conf != nil {
		b = fmt.Appendf(b, "%d %d %v ", e.Conf.Op, e.Conf.Member, e.Conf.Err)
		b = append(b, e.Conf.Context...)
	}
	return b
}

// record keeps an entry that nobody had applied before.
func (s *Sim) record(e raft.Entry) {
	out := history.Entry{Index: uint64(e.Index), Term: uint64(e.Term)}
	if e.Conf != nil {
		s.recordChange(e.Conf)
	}
	for _, c := range e.Commands {
		logged, err := server.ReadCommand(c)
		if err != nil {
			s.fail("O6", "entry %d: %v", e.Index, err)
			return
		}
		if a, ok := logged.Request.(*pb.AlarmRequest); ok && logged.Own && a.Action == pb.AlarmRequest_ACTIVATE {
			s.stats.Full++
		} else if ok && logged.Own {
			s.stats.Emptied++
		}
		h := history.Command{ID: c.ID, Request: logged.Request, Own: logged.Own, Leader: uint64(logged.Term), At: s.now}
		for _, l := range logged.Expire {
			h.Expired = append(h.Expired, history.Lease{ID: int64(l.ID)})
		}
		for _, l := range logged.Checkpoint {
			h.Checkpointed = append(h.Checkpointed, history.Lease{ID: int64(l.ID), Remaining: l.Remaining})
		}
		out.Commands = append(out.Commands, h)
		s.mix(uint64(e.Index), c.ID)
	}
	s.hist.Log = append(s.hist.Log, out)
}
