package oracle

import (
	"cmp"
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// Linearizable is O1 by revision order: the log is the candidate order, and
//
//   - every acknowledged write got the answer that the model gives at its place;
//   - every read equals the model at the revision that its header names;
//   - who was called after somebody had been answered sees at least what that one
//     saw, and a write comes after it in the log;
//   - so nobody sees a revision before it was asked for.
//
// It takes n log n, and so histories of millions of operations.
func Linearizable(c *Case) []error {
	f := findings(slices.Clone(c.broken))
	for _, op := range c.Ops {
		if op.Outcome == history.OK {
			c.checkAnswer(&f, op)
		}
	}
	for _, p := range c.placed {
		if p.op != nil && p.op.Call > p.At {
			f.add("op %d of client %d was called at %v, but its revision %d had been seen at %v", p.op.ID, p.op.Client, p.op.Call, p.Rev, p.At)
		}
	}
	c.checkTime(&f)
	return f
}

func (c *Case) checkAnswer(f *findings, op *history.Op) {
	var want proto.Message
	switch r := op.Request.(type) {
	case *pb.LeaseKeepAliveRequest:
		return // O7
	case *pb.RangeRequest:
		if op.Revision() > c.Model.Rev {
			f.add("op %d of client %d on member %x: read at revision %d, the last is %d", op.ID, op.Client, op.Member, op.Revision(), c.Model.Rev)
			return
		}
		want = c.Model.Range(r, op.Revision())
	case *pb.TxnRequest:
		want = c.reads[op]
		if !op.ReadOnly() {
			want = c.answerOf(op)
		} else if want == nil {
			f.add("op %d of client %d on member %x: read at revision %d, which never was", op.ID, op.Client, op.Member, op.Revision())
		}
	default:
		want = c.answerOf(op)
	}
	if want == nil {
		return // O4 says that it is not in the log
	}
	if !sameAnswer(want, op.Response) {
		f.add("op %d of client %d on member %x at %v (revision %d): %v\n  answered %v\n  model    %v",
			op.ID, op.Client, op.Member, op.Call, op.Revision(), op.Request, op.Response, want)
	}
}

func (c *Case) answerOf(op *history.Op) proto.Message {
	if p := c.ops[op]; p != nil {
		return p.Response
	}
	return nil
}

// checkTime goes through calls and returns in order. seen is what the answers so
// far have shown: a revision and, of writes, a place in the log.
func (c *Case) checkTime(f *findings) {
	type moment struct {
		op   *history.Op
		call bool
	}
	var line []moment
	c.checkMonotone(f)
	for _, op := range c.Ops {
		if op.Serializable() {
			c.checkStale(f, op)
			continue
		}
		p := c.ops[op]
		if _, renewal := op.Request.(*pb.LeaseKeepAliveRequest); renewal {
			continue // its revision is that of whoever answered
		}
		if op.Outcome == history.Refused || p != nil && op.Outcome == history.Unknown && c.words[c.asks[op]] > 1 {
			continue // it told nobody anything, or its place is a guess
		}
		if p != nil || op.Outcome == history.OK && op.Revision() > 0 && op.ReadOnly() {
			line = append(line, moment{op, true})
			if op.Outcome == history.OK {
				line = append(line, moment{op, false})
			}
		}
	}
	at := func(m moment) int64 {
		if m.call {
			return int64(m.op.Call)
		}
		return int64(m.op.Return)
	}
	// At one instant calls come first: they overlap with what returns then.
	slices.SortStableFunc(line, func(a, b moment) int {
		if c := cmp.Compare(at(a), at(b)); c != 0 || a.call == b.call {
			return c
		}
		if a.call {
			return -1
		}
		return 1
	})
	var rev int64
	var by *history.Op
	pos := -1
	for _, m := range line {
		p := c.ops[m.op]
		r := m.op.Revision()
		if p != nil {
			r = p.Rev
		}
		switch {
		case !m.call:
			if r > rev {
				rev, by = r, m.op
			}
			if p != nil {
				pos = max(pos, p.pos)
			}
		case r < rev || p != nil && p.Changed && r == rev:
			f.add("op %d of client %d on member %x called at %v has revision %d, but op %d had returned %d at %v: %v",
				m.op.ID, m.op.Client, m.op.Member, m.op.Call, r, by.ID, rev, by.Return, m.op.Request)
		case p != nil && p.pos < pos:
			f.add("op %d of client %d called at %v stands in the log (entry %d) before what had returned by then",
				m.op.ID, m.op.Client, m.op.Call, p.index)
		}
	}
}

// checkStale: a read that may be stale still shows nothing from the future.
func (c *Case) checkStale(f *findings, op *history.Op) {
	if op.Outcome != history.OK {
		return
	}
	i := sort.Search(len(c.placed), func(i int) bool { return c.placed[i].Rev >= op.Revision() })
	if i < len(c.placed) && c.placed[i].Changed && c.placed[i].Rev == op.Revision() && c.placed[i].At > op.Return {
		f.add("op %d of client %d on member %x saw revision %d at %v, which was first applied at %v",
			op.ID, op.Client, op.Member, op.Revision(), op.Return, c.placed[i].At)
	}
}

// checkMonotone: whatever a member's process has shown, it shows ever after, in
// reads that may be stale too.
func (c *Case) checkMonotone(f *findings) {
	type process struct {
		member uint64
		life   int
	}
	byProcess := map[process][]*history.Op{}
	for _, op := range c.Ops {
		if op.Life > 0 && op.Outcome == history.OK && op.Revision() > 0 {
			p := process{op.Member, op.Life}
			byProcess[p] = append(byProcess[p], op)
		}
	}
	for _, ops := range byProcess {
		byCall := slices.Clone(ops)
		sort.SliceStable(byCall, func(i, j int) bool { return byCall[i].Call < byCall[j].Call })
		sort.SliceStable(ops, func(i, j int) bool { return ops[i].Return < ops[j].Return })
		var newest *history.Op
		for _, op := range byCall {
			for len(ops) > 0 && ops[0].Return < op.Call {
				if newest == nil || ops[0].Revision() > newest.Revision() {
					newest = ops[0]
				}
				ops = ops[1:]
			}
			if newest != nil && op.Revision() < newest.Revision() {
				f.add("op %d of client %d on member %x called at %v shows revision %d; the same process had shown %d to op %d at %v",
					op.ID, op.Client, op.Member, op.Call, op.Revision(), newest.Revision(), newest.ID, newest.Return)
			}
		}
	}
}
