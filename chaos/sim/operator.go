package sim

import (
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// operator is the person who looks after the cluster: a client that asks only
// what the plan of faults has it ask, several things at once if need be.
type operator struct {
	client
	insisting int       // requests that are repeated until they are answered
	alarmed   []*member // for which an alarm was ever raised
}

func newOperator(s *Sim, n int) *operator {
	return &operator{client: client{s: s, n: n}}
}

// ask asks a member once.
func (o *operator) ask(m *member, method string, req proto.Message) {
	if m.serves() {
		o.send(m, method, req, func(*history.Op) {})
	}
}

// insist asks one member after the other until one has answered.
func (o *operator) insist(method string, req proto.Message) {
	o.insisting++
	o.until(method, func() proto.Message { return req }, func(proto.Message) { o.insisting-- })
}

// until asks until a member answers, and hands the answer on.
func (o *operator) until(method string, req func() proto.Message, done func(proto.Message)) {
	s := o.s
	again := func() { s.after(100*time.Millisecond, func() { o.until(method, req, done) }) }
	m := s.anybody()
	if !m.serves() {
		again()
		return
	}
	o.send(m, method, req(), func(op *history.Op) {
		if op.Outcome != history.OK {
			again()
			return
		}
		done(op.Response)
	})
}

func (o *operator) clearAlarm(m *member) {
	o.insist("etcdserverpb.Maintenance/Alarm", &pb.AlarmRequest{
		MemberID: uint64(m.id), Alarm: pb.AlarmType_NOSPACE, Action: pb.AlarmRequest_DEACTIVATE,
	})
}

// makeRoom deletes and compacts, as long as clients wait to be served: a full store
// allows both, and what they give back ends its alarm.
func (o *operator) makeRoom() {
	if o.s.stopped {
		return
	}
	for _, prefix := range []string{"key", "tag"} {
		o.ask(o.s.anybody(), "etcdserverpb.KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte(prefix + "/"), RangeEnd: []byte(prefix + "0")})
	}
	if m := o.s.anybody(); m.node != nil && !m.repairing {
		o.ask(m, "etcdserverpb.KV/Compact", &pb.CompactionRequest{Revision: int64(m.node.Store().Revision()), Physical: true})
	}
	o.s.after(2*time.Second, o.makeRoom)
}

// clearAlarms clears all alarms again and again while clients wait to be served:
// one may be raised late by a request that was given up long ago.
func (o *operator) clearAlarms() {
	if o.s.stopped {
		return
	}
	for _, m := range o.alarmed {
		o.clearAlarm(m)
	}
	o.s.after(time.Second, o.clearAlarms)
}
