// Package oracle judges a history. Each property is one named function, O1 to
// O13 of the reliability plan; the rings share them and tests break each one.
//
// Model is the store as it should be. A Case is a history whose log was replayed
// through the model once, with each client's operation found in the log; where the
// members' logs cannot be read, the log is made of what the cluster told
// (derive.go). The oracles compare a Case with what clients, watches and members
// say:
//
//	O1  Linearizable   revision order; every answer is the model's
//	    Searched       short windows of single keys, by a checker that searches
//	O2  Lists          transactions on lists have no cycle of dependencies
//	O3  Watches        the watch guarantees of package watchcheck, and no lag
//	O4  Durable        what was acknowledged is in the log and in every member
//	O5  Equal          members hold the same, beyond keys too
//	O6  Raft           see Observer: it watches while the run goes on
//	O7  Leases         no lease ends early, none lives on for ever
//	    Fenced         tokens of locks never go back
//	O8  Once           no operation is in the log twice
//	    Counters       compare-and-swap loses nothing and counts nothing twice
//	O9  Available      no gap without a fault
//	O10 Resources      what a member uses does not grow
//	O11 Logs           nothing severe is printed without a fault; damage is told
//	O12 Exits          no member ends by itself without a reason
//
// O1 and O2 and Searched know nothing of each other: what one accepts the others
// must. O13, the differential against etcd, is in the nested module compat.
package oracle

import (
	"fmt"
	"sort"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// Oracle is one property.
type Oracle struct {
	Name  string
	Check func(*Case) []error
}

// All are the oracles that judge a finished run.
func All() []Oracle {
	return []Oracle{
		{"O1", Linearizable}, {"O1", Searched}, {"O2", Lists}, {"O3", Watches}, {"O4", Durable}, {"O5", Equal}, {"O7", Leases}, {"O7", Fenced},
		{"O8", Once}, {"O8", Counters}, {"O9", Available}, {"O10", Resources}, {"O11", Logs}, {"O12", Exits},
	}
}

// Judge asks all oracles and writes their verdicts into the history: one for each
// number.
func Judge(h *history.History, now func() time.Duration) []history.Verdict {
	h.Verdicts = nil
	begin := now()
	c := NewCase(h)
	for _, o := range All() {
		var v *history.Verdict
		if n := len(h.Verdicts); n > 0 && h.Verdicts[n-1].Oracle == o.Name {
			v = &h.Verdicts[n-1]
		} else {
			h.Verdicts = append(h.Verdicts, history.Verdict{Oracle: o.Name})
			v = &h.Verdicts[n]
		}
		for _, err := range o.Check(c) {
			v.Findings = append(v.Findings, err.Error())
		}
		end := now()
		v.Took += end - begin
		begin = end
	}
	return h.Verdicts
}

// maxFindings bounds what one oracle reports: the first ones tell the story.
const maxFindings = 10

// Case is a history, replayed.
type Case struct {
	*history.History
	Model  *Model // after the whole log
	placed []*placed
	ops    map[*history.Op]*placed // where the log has it
	twice  []*placed               // commands of the log beyond the operations that asked for them
	reads  map[*history.Op]proto.Message
	asks   map[*history.Op]string // what a writing operation and the log have in common
	words  map[string]int         // how many operations ask the same

	derived bool                  // the history has no log
	maybe   map[int64]*history.Op // then, leases that may have been granted
	// Without a log, what cannot be brought into an order, and what is there that
	// nobody asked for, or twice.
	broken, again []error
}

// placed is one command at its place in the log.
type placed struct {
	history.Command
	Result
	index, term uint64
	pos         int // in Case.placed
	op          *history.Op
}

// NewCase replays the log and finds the operations in it. Without a log it makes
// one out of what the cluster told (derive.go).
func NewCase(h *history.History) *Case {
	c := &Case{History: h, Model: NewModel(), ops: map[*history.Op]*placed{}, reads: map[*history.Op]proto.Message{},
		asks: map[*history.Op]string{}, words: map[string]int{}}
	if len(h.Log) == 0 {
		c.derive()
		return c
	}
	reads := c.readTxns()
	for _, e := range h.Log {
		for _, cmd := range e.Commands {
			for len(reads) > 0 && reads[0].Revision() <= c.Model.Rev {
				c.readTxn(reads[0])
				reads = reads[1:]
			}
			p := &placed{Command: cmd, index: e.Index, term: e.Term, pos: len(c.placed)}
			p.Result = c.Model.Apply(e.Term, cmd)
			c.placed = append(c.placed, p)
		}
	}
	for _, op := range reads {
		c.readTxn(op)
	}
	c.match()
	return c
}

// readTxns are the transactions that only read, in the order of their revisions.
func (c *Case) readTxns() (out []*history.Op) {
	for _, op := range c.Ops {
		if _, txn := op.Request.(*pb.TxnRequest); txn && op.ReadOnly() && op.Outcome == history.OK {
			out = append(out, op)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Revision() < out[j].Revision() })
	return out
}

// readTxn evaluates a transaction that reads at the model's present revision, if
// that is the one that it was answered at.
func (c *Case) readTxn(op *history.Op) {
	if op.Revision() == c.Model.Rev {
		c.reads[op] = c.Model.Apply(0, history.Command{Request: op.Request}).Response
	}
}

// Asked is what the log and the operation have in common.
func Asked(r proto.Message) string {
	if g, ok := r.(*pb.LeaseGrantRequest); ok {
		return fmt.Sprintf("grant %d", g.ID) // the member completes the rest
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		panic(err) // it was a message of the wire
	}
	return string(r.ProtoReflect().Descriptor().Name()) + " " + string(b)
}

// match finds each operation that writes in the log. Writes carry tags; what can
// be asked twice in the same words is told apart by its answer and its time, who
// returned first choosing first.
func (c *Case) match() {
	free := map[string][]*placed{}
	for _, p := range c.placed {
		if p.Request != nil && !p.Own {
			k := Asked(p.Request)
			free[k] = append(free[k], p)
		}
	}
	var ops []*history.Op
	for _, op := range c.Ops {
		if !op.ReadOnly() {
			c.asks[op] = Asked(op.Request)
			c.words[c.asks[op]]++
			ops = append(ops, op)
		}
	}
	sort.SliceStable(ops, func(i, j int) bool { return ops[i].Return < ops[j].Return })
	for _, fits := range []func(*history.Op, *placed) bool{fitsAnswer, fitsRevision, fitsRefusal, fitsUnknown} {
		for _, op := range ops {
			if c.ops[op] != nil {
				continue
			}
			k := c.asks[op]
			for i, p := range free[k] {
				if op.Call <= p.At && fits(op, p) {
					p.op, c.ops[op] = op, p
					free[k] = append(free[k][:i:i], free[k][i+1:]...)
					break
				}
			}
		}
	}
	for _, p := range c.placed {
		if p.Request != nil && !p.Own && p.op == nil {
			c.twice = append(c.twice, p)
		}
	}
}

func fitsAnswer(op *history.Op, p *placed) bool {
	return fitsRevision(op, p) && sameAnswer(op.Response, p.Response)
}

func fitsRevision(op *history.Op, p *placed) bool {
	return op.Outcome == history.OK && p.Err == nil && p.Rev == op.Revision() && p.At <= op.Return
}

func fitsRefusal(op *history.Op, p *placed) bool {
	return op.Outcome == history.Refused && p.Err != nil && p.Err.Error() == op.Err && p.At <= op.Return
}

func fitsUnknown(op *history.Op, _ *placed) bool { return op.Outcome == history.Unknown }

// Written is the revisions that acknowledged writes made, in the log's order.
func (c *Case) Written() (revs []int64) {
	for _, p := range c.placed {
		if p.op != nil && p.op.Outcome == history.OK && p.Changed {
			revs = append(revs, p.Rev)
		}
	}
	return revs
}

// findings collects errors up to a bound.
type findings []error

func (f *findings) add(format string, args ...any) {
	if len(*f) < maxFindings {
		*f = append(*f, fmt.Errorf(format, args...))
	}
}
