package oracle

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// Where the members' logs cannot be read, the order is taken from what the
// cluster told everybody: watches of all keys from the first revision on
// (collectors) say what each revision changed, and headers say at which revision
// an answer was given. For each revision the operation that made it is looked for:
// one that was told so, else one whose unique value is in it, else a deletion, a
// revocation or an expiry that does just this. All else that was answered at a
// revision comes after what made it, and changed nothing.
//
// A wrong guess cannot hide a violation: whatever is placed is put through the
// model, and must change and answer what was seen.

// derivation is the making of a Case without a log.
type derivation struct {
	c       *Case
	asked   []*history.Op // answered, but for plain reads, in the order of their revisions
	tags    map[string]*history.Op
	vague   map[string][]*history.Op // of unknown outcome, without a value to find them by: by what they delete
	grants  map[int64]*history.Op    // of unknown outcome
	knownBy []time.Duration          // by revision: when somebody had seen it, or a later one
	broken  error
}

// collected is the events of each revision, as collectors were told them, by
// revision - 1; and how they contradict each other.
func collected(h *history.History) (byRev [][]*mvccpb.Event, findings findings) {
	for _, w := range h.Watches {
		if !Collects(w) {
			continue
		}
		for _, r := range w.Responses {
			for events := r.Events; len(events) > 0; {
				rev := events[0].Kv.ModRevision
				n := 1
				for n < len(events) && events[n].Kv.ModRevision == rev {
					n++
				}
				for int64(len(byRev)) < rev {
					byRev = append(byRev, nil)
				}
				switch had := byRev[rev-1]; {
				case had == nil:
					byRev[rev-1] = events[:n:n]
				case !sameEvents(had, events[:n]):
					findings.add("watch %d on member %s says of revision %d: %v; another said %v", w.ID, h.Name(w.Member), rev, events[:n], had)
				}
				events = events[n:]
			}
		}
	}
	return byRev, findings
}

// Collects reports whether a watch is told of all keys, each change in one piece.
func Collects(w *history.Watch) bool {
	r := w.Request
	return string(r.Key) == "\x00" && string(r.End) == "\x00" && !r.NoPut && !r.NoDelete && !r.Fragment
}

func (c *Case) derive() {
	c.derived, c.maybe = true, map[int64]*history.Op{}
	d := &derivation{c: c, tags: map[string]*history.Op{}, vague: map[string][]*history.Op{}, grants: map[int64]*history.Op{}}
	byRev, findings := collected(c.History)
	c.broken = findings
	for _, op := range c.Ops {
		d.sort(op)
	}
	slices.SortStableFunc(d.asked, func(a, b *history.Op) int {
		return cmp.Or(cmp.Compare(a.Revision(), b.Revision()), cmp.Compare(a.Call, b.Call))
	})
	d.know(int64(len(byRev)))
	d.after(1)
	for i := 1; i < len(byRev) && d.broken == nil; i++ {
		rev := int64(i + 1)
		if byRev[i] == nil {
			d.broken = fmt.Errorf("no collector was told what revision %d changed; the last that one was told of is %d", rev, len(byRev))
			break
		}
		d.make(rev, byRev[i])
		d.after(rev)
	}
	if d.broken == nil {
		d.after(math.MaxInt64)
	}
	if d.broken != nil {
		c.broken = append(c.broken, d.broken)
	}
}

// sort puts an operation where it will be looked for.
func (d *derivation) sort(op *history.Op) {
	if _, plain := op.Request.(*pb.RangeRequest); plain {
		return
	}
	if op.Outcome == history.OK {
		if _, renewal := op.Request.(*pb.LeaseKeepAliveRequest); !renewal && op.Revision() > 0 {
			d.asked = append(d.asked, op)
		}
	}
	n := 0
	values(op.Request, func(v []byte) {
		n++
		d.tags[string(v)] = op
	})
	if n > 0 || op.Outcome != history.Unknown {
		return
	}
	switch r := op.Request.(type) {
	case *pb.LeaseGrantRequest:
		d.grants[r.ID], d.c.maybe[r.ID] = op, op
	case *pb.LeaseRevokeRequest:
		d.vaguely(leaseName(r.ID), op)
	case *pb.DeleteRangeRequest:
		d.vaguely(deleted(r), op)
	case *pb.TxnRequest:
		for _, o := range slices.Concat(r.Success, r.Failure) {
			if del := o.GetRequestDeleteRange(); del != nil {
				d.vaguely(deleted(del), op)
			}
		}
	}
}

func (d *derivation) vaguely(what string, op *history.Op) { d.vague[what] = append(d.vague[what], op) }

// deleted is the key that a deletion is about; of a range "", which is no key.
func deleted(r *pb.DeleteRangeRequest) string {
	if len(r.RangeEnd) > 0 {
		return ""
	}
	return string(r.Key)
}

// leaseName is no key either.
func leaseName(id int64) string { return fmt.Sprint("\x00lease ", id) }

// values calls f with what a request would put.
func values(r proto.Message, f func([]byte)) {
	switch r := r.(type) {
	case *pb.PutRequest:
		if !r.IgnoreValue {
			f(r.Value)
		}
	case *pb.TxnRequest:
		for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
			for _, op := range ops {
				switch o := op.Request.(type) {
				case *pb.RequestOp_RequestPut:
					values(o.RequestPut, f)
				case *pb.RequestOp_RequestTxn:
					values(o.RequestTxn, f)
				}
			}
		}
	}
}

// know finds when each revision was known to somebody: by an answer's header, or
// by an event.
func (d *derivation) know(last int64) {
	d.knownBy = make([]time.Duration, last+2)
	for i := range d.knownBy {
		d.knownBy[i] = math.MaxInt64
	}
	seen := func(rev int64, at time.Duration) {
		if 0 < rev && rev <= last {
			d.knownBy[rev] = min(d.knownBy[rev], at)
		}
	}
	for _, op := range d.c.Ops {
		seen(op.Revision(), op.Return)
	}
	for _, w := range d.c.History.Watches {
		for i, r := range w.Responses {
			if n := len(r.Events); n > 0 && i < len(w.At) {
				seen(r.Events[n-1].Kv.ModRevision, w.At[i])
			}
		}
	}
	for i := last; i > 0; i-- {
		d.knownBy[i] = min(d.knownBy[i], d.knownBy[i+1])
	}
}

// after places what was answered at a revision or before, and changed nothing.
func (d *derivation) after(rev int64) {
	for len(d.asked) > 0 && d.asked[0].Revision() <= rev && d.broken == nil {
		op := d.asked[0]
		d.asked = d.asked[1:]
		switch {
		case d.c.ops[op] != nil || d.claims(op):
		case op.ReadOnly():
			d.c.readTxn(op)
		case op.Revision() <= d.c.Model.Rev:
			p := d.place(op, history.Command{Request: completed(op), At: op.Return})
			if p.Changed {
				d.broken = fmt.Errorf("op %d of client %d, answered at revision %d that it changed nothing, must change something: %v → %v",
					op.ID, op.Client, op.Revision(), op.Request, op.Response)
			}
		}
	}
}

// completed is the request as the log has it: a member gives a lease more time than
// was asked for, if that was very little.
func completed(op *history.Op) proto.Message {
	r, ok := op.Response.(*pb.LeaseGrantResponse)
	if q, grant := op.Request.(*pb.LeaseGrantRequest); grant && ok && r.TTL > q.TTL {
		return &pb.LeaseGrantRequest{ID: r.ID, TTL: r.TTL}
	}
	return op.Request
}

// claims reports whether the caller was told that something changed.
func (d *derivation) claims(op *history.Op) bool {
	if r, ok := op.Request.(*pb.LeaseRevokeRequest); ok {
		l := d.c.Model.leases[r.ID]
		return l != nil && len(l.keys) > 0
	}
	return claims(op.Response)
}

func claims(r proto.Message) bool {
	switch r := r.(type) {
	case *pb.PutResponse:
		return true
	case *pb.DeleteRangeResponse:
		return r.Deleted > 0
	case *pb.TxnResponse:
		return slices.ContainsFunc(r.Responses, func(o *pb.ResponseOp) bool { return claims(inner(o)) })
	}
	return false
}

// make places what made a revision.
func (d *derivation) make(rev int64, events []*mvccpb.Event) {
	m := d.c.Model
	for _, e := range events { // a lease that is used was granted
		if g := d.grants[e.Kv.Lease]; g != nil && e.Kv.Lease != 0 && m.leases[e.Kv.Lease] == nil {
			d.place(g, history.Command{Request: g.Request, At: d.knownBy[rev]})
			delete(d.grants, e.Kv.Lease)
		}
	}
	had := len(m.Events)
	op := d.maker(rev, events)
	switch {
	case op != nil:
		if d.c.ops[op] != nil {
			d.c.again = append(d.c.again, fmt.Errorf("op %d of client %d made revision %d and %d: %v", op.ID, op.Client, d.c.ops[op].Rev, rev, op.Request))
			m.force(events)
			return
		}
		if op.Outcome == history.Refused {
			d.c.again = append(d.c.again, fmt.Errorf("op %d of client %d was refused (%s) and made revision %d: %v", op.ID, op.Client, op.Err, rev, op.Request))
		}
		d.place(op, history.Command{Request: op.Request, At: d.knownBy[rev]})
	case d.expires(events):
		d.place(nil, history.Command{Expired: []history.Lease{{ID: d.c.leaseOf(events)}}, At: d.knownBy[rev]})
	default:
		d.c.again = append(d.c.again, fmt.Errorf("revision %d holds what nobody asked for: %v", rev, events))
		m.force(events)
		return
	}
	if !sameEvents(m.Events[had:], events) {
		d.broken = fmt.Errorf("revision %d is %v; it must be %v, made by %v", rev, events, m.Events[had:], d.c.placed[len(d.c.placed)-1].Request)
	}
}

// maker is the operation that made a revision: nil if none did.
func (d *derivation) maker(rev int64, events []*mvccpb.Event) *history.Op {
	for _, op := range d.asked {
		if op.Revision() > rev {
			break
		}
		if op.Revision() == rev && d.c.ops[op] == nil && d.claims(op) && d.does(op.Request, events) {
			return op
		}
	}
	for _, e := range events {
		if op := d.tags[string(e.Kv.Value)]; op != nil && e.Type == mvccpb.Event_PUT {
			return op
		}
	}
	for _, what := range []string{string(events[0].Kv.Key), leaseName(d.c.leaseOf(events)), ""} {
		for _, op := range d.vague[what] {
			if d.c.ops[op] == nil && op.Call <= d.knownBy[rev] && d.does(op.Request, events) {
				return op
			}
		}
	}
	return nil
}

// does reports whether a request would now do what the events say.
func (d *derivation) does(r proto.Message, events []*mvccpb.Event) bool {
	i := 0
	fits := d.c.Model.writes(r, func(key string, put *pb.PutRequest) bool {
		if i >= len(events) {
			return false
		}
		e := events[i]
		i++
		return string(e.Kv.Key) == key && (e.Type == mvccpb.Event_PUT) == (put != nil) &&
			(put == nil || put.IgnoreValue || string(put.Value) == string(e.Kv.Value))
	})
	return fits && i == len(events)
}

// expires reports whether the events are the end of a lease.
func (d *derivation) expires(events []*mvccpb.Event) bool {
	l := d.c.Model.leases[d.c.leaseOf(events)]
	return l != nil && len(l.keys) == len(events) && !slices.ContainsFunc(events, func(e *mvccpb.Event) bool {
		return e.Type == mvccpb.Event_PUT || !l.keys[string(e.Kv.Key)]
	})
}

// leaseOf is the lease of the first key of a revision, before it.
func (c *Case) leaseOf(events []*mvccpb.Event) int64 {
	v, _ := c.Model.latest(string(events[0].Kv.Key))
	return v.lease
}

func (d *derivation) place(op *history.Op, cmd history.Command) *placed {
	c := d.c
	p := &placed{Command: cmd, index: uint64(len(c.placed) + 1), pos: len(c.placed), op: op}
	p.Result = c.Model.Apply(0, cmd)
	c.placed = append(c.placed, p)
	if op != nil {
		c.ops[op] = p
	}
	return p
}
