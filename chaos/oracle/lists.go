package oracle

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// Lists is O2: transactions that read and append to lists are strictly
// serializable, by what clients saw alone; revisions are not asked. Values show
// the whole order of the appends to a list. From it follow the dependencies
// between transactions: who wrote after whom (ww), who read what whom wrote (wr),
// who read what was there before whom (rw), who ended before whom began (rt). A
// cycle among them is an anomaly, and its edges name it.
//
// Besides: an append is in a list once, in one order, and in no list if its
// transaction was refused or took the other branch; an acknowledged one is in
// every later state of the list.
func Lists(c *Case) []error {
	l := &listCheck{appended: map[string]*listTxn{}, orders: map[string][]string{}}
	for _, op := range c.Ops {
		l.take(op)
	}
	for _, s := range c.States {
		for _, kv := range s.Keys {
			if strings.HasPrefix(kv.Key, ListPrefix) {
				l.txns = append(l.txns, &listTxn{op: &history.Op{ID: -1, Client: -1, Call: c.End, Return: c.End + 1}, sure: true, reads: map[string][]string{kv.Key: strings.Fields(kv.Value)}})
			}
		}
	}
	l.order()
	if len(l.findings) == 0 {
		l.cycles()
	}
	return l.findings
}

// listTxn is a transaction on lists, as its client knows it.
type listTxn struct {
	op    *history.Op
	sure  bool                // it happened
	not   bool                // its appends did not happen
	tags  map[string]string   // appended, by list
	reads map[string][]string // what the lists were
}

type listCheck struct {
	txns     []*listTxn
	appended map[string]*listTxn // by list and tag
	orders   map[string][]string // the tags of each list, as the longest answer has them
	findings findings
}

// take makes a transaction of a call, if it is about lists.
func (l *listCheck) take(op *history.Op) {
	q, ok := op.Request.(*pb.TxnRequest)
	if !ok || !onLists(q.Success) {
		return
	}
	t := &listTxn{op: op, tags: map[string]string{}, reads: map[string][]string{}}
	then := op.Outcome != history.Refused
	if r, ok := op.Response.(*pb.TxnResponse); ok && op.Outcome == history.OK {
		t.sure, then = true, r.Succeeded
		ops := q.Failure
		if r.Succeeded {
			ops = q.Success
		}
		for i, o := range ops {
			if o.GetRequestRange() != nil && i < len(r.Responses) {
				t.read(o.GetRequestRange(), r.Responses[i].GetResponseRange())
			}
		}
	}
	t.not = !then
	for _, o := range q.Success {
		p := o.GetRequestPut()
		if p == nil {
			continue
		}
		tags := strings.Fields(string(p.Value))
		last := len(tags) - 1
		t.tags[string(p.Key)] = tags[last]
		if t.sure && then {
			t.reads[string(p.Key)] = tags[:last] // the guard says that this is what it was
		}
		l.appended[string(p.Key)+" "+tags[last]] = t
	}
	l.txns = append(l.txns, t)
}

func onLists(ops []*pb.RequestOp) bool {
	return len(ops) > 0 && !slices.ContainsFunc(ops, func(o *pb.RequestOp) bool {
		return !strings.HasPrefix(string(o.GetRequestPut().GetKey())+string(o.GetRequestRange().GetKey()), ListPrefix)
	})
}

func (t *listTxn) read(q *pb.RangeRequest, r *pb.RangeResponse) {
	t.reads[string(q.Key)] = nil
	for _, kv := range r.GetKvs() {
		t.reads[string(kv.Key)] = strings.Fields(string(kv.Value))
	}
}

// after is the list as the transaction left it, as far as it is known.
func (t *listTxn) after(list string) []string {
	if tag := t.tags[list]; tag != "" && t.sure && !t.not {
		return append(slices.Clip(t.reads[list]), tag)
	}
	return t.reads[list]
}

// order finds the order of appends to each list and holds every answer to it.
func (l *listCheck) order() {
	by := map[string]*listTxn{}
	for _, t := range l.txns {
		for list := range t.reads {
			if all := t.after(list); len(all) > len(l.orders[list]) {
				l.orders[list], by[list] = all, t
			}
		}
	}
	for _, t := range l.txns {
		for list := range t.reads {
			if got := t.after(list); !slices.Equal(got, l.orders[list][:len(got)]) {
				l.findings.add("op %d of client %d saw %s as %v; op %d saw %v", t.op.ID, t.op.Client, list, got, by[list].op.ID, l.orders[list])
			}
		}
	}
	for list, tags := range l.orders {
		seen := map[string]bool{}
		for _, tag := range tags {
			t := l.appended[list+" "+tag]
			switch {
			case seen[tag]:
				l.findings.add("%s holds %s twice: %v", list, tag, tags)
			case t == nil:
				l.findings.add("%s holds %s, which nobody appended", list, tag)
			case t.not:
				l.findings.add("%s holds %s, but op %d of client %d was told that it was not appended", list, tag, t.op.ID, t.op.Client)
			default:
				t.sure = true
			}
			seen[tag] = true
		}
	}
}

// edge is a dependency: from happened before to.
type edge struct {
	to        int
	why, list string
}

// cycles makes the graph and looks for strongly connected components.
func (l *listCheck) cycles() {
	l.txns = slices.DeleteFunc(l.txns, func(t *listTxn) bool { return !t.sure })
	at := map[*listTxn]int{}
	for i, t := range l.txns {
		at[t] = i
	}
	edges := make([][]edge, len(l.txns))
	add := func(from, to int, why, list string) {
		if from != to {
			edges[from] = append(edges[from], edge{to, why, list})
		}
	}
	for list, tags := range l.orders {
		for i := 1; i < len(tags); i++ {
			add(at[l.appended[list+" "+tags[i-1]]], at[l.appended[list+" "+tags[i]]], "ww", list)
		}
	}
	for i, t := range l.txns {
		for list, saw := range t.reads {
			order := l.orders[list]
			if len(saw) > 0 {
				add(at[l.appended[list+" "+saw[len(saw)-1]]], i, "wr", list)
			}
			if len(saw) < len(order) {
				add(i, at[l.appended[list+" "+order[len(saw)]]], "rw", list)
			}
		}
	}
	l.realTime(add)
	for _, cycle := range components(edges) {
		l.findings.add("a cycle of transactions: %s", l.tell(cycle, edges))
	}
}

// realTime adds that who ended before another began came before it. Only the
// newest ends are kept: the others follow.
func (l *listCheck) realTime(add func(from, to int, why, list string)) {
	type moment struct {
		at   time.Duration
		txn  int
		call bool
	}
	var line []moment
	for i, t := range l.txns {
		line = append(line, moment{t.op.Call, i, true})
		if t.op.Outcome != history.Unknown {
			line = append(line, moment{t.op.Return, i, false})
		}
	}
	slices.SortStableFunc(line, func(a, b moment) int {
		if a.at != b.at {
			return int(min(1, max(-1, a.at-b.at)))
		}
		if a.call == b.call {
			return 0
		}
		if a.call {
			return -1
		}
		return 1
	})
	var ended []int
	for _, m := range line {
		if m.call {
			for _, e := range ended {
				add(e, m.txn, "rt", "")
			}
			continue
		}
		began := l.txns[m.txn].op.Call
		ended = slices.DeleteFunc(ended, func(e int) bool { return l.txns[e].op.Return < began })
		ended = append(ended, m.txn)
	}
}

// tell names the edges inside a component, some of them.
func (l *listCheck) tell(component []int, edges [][]edge) string {
	in := map[int]bool{}
	for _, i := range component {
		in[i] = true
	}
	var b strings.Builder
	n := 0
	for _, i := range component {
		for _, e := range edges[i] {
			if in[e.to] && n < 12 {
				n++
				fmt.Fprintf(&b, "op %d of client %d -%s %s-> op %d; ", l.txns[i].op.ID, l.txns[i].op.Client, e.why, e.list, l.txns[e.to].op.ID)
			}
		}
	}
	return b.String()
}

// components are the strongly connected components of more than one node
// (Tarjan's algorithm, with a stack of its own: graphs are large).
func components(edges [][]edge) (out [][]int) {
	const unseen = math.MaxInt
	index, low, on := make([]int, len(edges)), make([]int, len(edges)), make([]bool, len(edges))
	for i := range index {
		index[i] = unseen
	}
	type frame struct{ node, next int }
	var stack []int
	var calls []frame
	count := 0
	for root := range edges {
		if index[root] != unseen {
			continue
		}
		calls = append(calls, frame{root, 0})
		for len(calls) > 0 {
			f := &calls[len(calls)-1]
			v := f.node
			if f.next == 0 {
				index[v], low[v], on[v] = count, count, true
				count++
				stack = append(stack, v)
			} else {
				low[v] = min(low[v], low[edges[v][f.next-1].to])
			}
			for f.next < len(edges[v]) {
				to := edges[v][f.next].to
				f.next++
				if index[to] == unseen {
					calls = append(calls, frame{to, 0})
					break
				}
				if on[to] {
					low[v] = min(low[v], index[to])
				}
			}
			if calls[len(calls)-1].node != v {
				continue // into a child
			}
			calls = calls[:len(calls)-1]
			if low[v] == index[v] {
				cut := len(stack) - 1
				for stack[cut] != v {
					cut--
				}
				component := slices.Clone(stack[cut:])
				stack = stack[:cut]
				for _, w := range component {
					on[w] = false
				}
				if len(component) > 1 {
					out = append(out, component)
				}
			}
		}
	}
	return out
}
