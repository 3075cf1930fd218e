package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// What Searched looks at: a search takes exponential time in how many calls
// overlap, so it gets few and short windows, and gives up on one that takes long.
const (
	searchWindow  = 120 // calls of one key
	searchWindows = 60  // in all
	searchTime    = 250 * time.Millisecond
)

// Searched is O1 by another checker (porcupine), which knows nothing of revisions:
// on keys that grow from one value to the next (lists and counters), windows of a
// history must have some order in which every read shows what was written last.
func Searched(c *Case) []error {
	var f findings
	byKey := map[string][]porcupine.Operation{}
	for _, op := range c.Ops {
		accesses(op, func(key string, a access) {
			byKey[key] = append(byKey[key], porcupine.Operation{ClientId: op.Client, Call: int64(op.Call), Return: int64(op.Return), Input: a})
		})
	}
	total := 0
	for _, ops := range byKey {
		total += len(ops)
	}
	step := max(searchWindow, total/searchWindows)
	at := 0 // among the calls of all keys; a window begins at each step
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		ops := observed(byKey[key])
		slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		from := (step - at%step) % step
		at += len(byKey[key])
		for ; from < len(ops); from += step {
			window := windowOf(ops, from, min(len(ops), from+searchWindow))
			if porcupine.CheckOperationsTimeout(register, window, searchTime) == porcupine.Illegal {
				f.add("no order of the %d calls of %s from %v to %v explains their answers", len(window), key,
					time.Duration(ops[from].Call), time.Duration(window[len(window)-1].Call))
			}
		}
	}
	return f
}

// observed leaves out the writes of unknown outcome that no answer rests on; the
// others happened before that answer.
func observed(ops []porcupine.Operation) (out []porcupine.Operation) {
	seen := map[string]int64{} // until when a value must have been there
	for _, op := range ops {
		if a := op.Input.(access); !a.unsure {
			if at, ok := seen[a.was]; !ok || op.Return < at {
				seen[a.was] = op.Return
			}
		}
	}
	for _, op := range ops {
		if a := op.Input.(access); a.unsure {
			until, ok := seen[a.now]
			if !ok || until < op.Call {
				continue
			}
			op.Return = until
		}
		out = append(out, op)
	}
	return out
}

// windowOf is some calls and those before them that overlap them. What overlaps
// calls outside the window may rest on them, or be done before them.
func windowOf(ops []porcupine.Operation, from, to int) (out []porcupine.Operation) {
	for i, op := range ops[:to] {
		if i < from && op.Return < ops[from].Call {
			continue
		}
		if i < from || to < len(ops) && op.Return >= ops[to].Call {
			a := op.Input.(access)
			a.unsure = true
			op.Input = a
		}
		out = append(out, op)
	}
	return out
}

// access is what a call knows of one key.
type access struct {
	was    string // what it read, or what its guard rested on
	now    string // what it wrote; "" if it only read
	unsure bool   // it may not have happened, or not here
}

// register is a value that changes from what it was to something new. It begins
// as anything.
var register = porcupine.Model{
	Init: func() any { return anything },
	Step: func(state, input, _ any) (bool, any) {
		a := input.(access)
		fits := state == a.was || state == anything && !a.unsure
		switch {
		case a.unsure && !fits:
			return true, state
		case a.now == "":
			return fits, a.was
		}
		return fits, a.now
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
}

// anything is no value of a key: values have no line ends.
const anything = "\n"

// accesses calls f with each list and counter that a call read or changed.
func accesses(op *history.Op, f func(key string, a access)) {
	q, ok := op.Request.(*pb.TxnRequest)
	if !ok || op.Outcome == history.Refused {
		return
	}
	r, _ := op.Response.(*pb.TxnResponse)
	if op.Outcome == history.OK && !r.GetSucceeded() {
		for i, o := range q.Failure {
			if key := string(o.GetRequestRange().GetKey()); grows(key) && i < len(r.GetResponses()) {
				f(key, access{was: shown(key, valueIn(r.Responses[i].GetResponseRange()))})
			}
		}
		return
	}
	for i, o := range q.Success {
		if p := o.GetRequestPut(); p != nil && grows(string(p.Key)) {
			f(string(p.Key), access{was: before(string(p.Key), string(p.Value)), now: shown(string(p.Key), string(p.Value)), unsure: op.Outcome != history.OK})
		}
		if key := string(o.GetRequestRange().GetKey()); grows(key) && op.Outcome == history.OK && i < len(r.GetResponses()) {
			f(key, access{was: shown(key, valueIn(r.Responses[i].GetResponseRange()))})
		}
	}
}

func grows(key string) bool {
	return strings.HasPrefix(key, ListPrefix) || strings.HasPrefix(key, CounterPrefix)
}

func valueIn(r *pb.RangeResponse) string {
	if len(r.GetKvs()) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

// shown is what of a value the next one rests on: all of a list, the number of a
// counter.
func shown(key, value string) string {
	if strings.HasPrefix(key, CounterPrefix) {
		value, _, _ = strings.Cut(value, " ")
	}
	return value
}

// before is what a value was made of.
func before(key, value string) string {
	if strings.HasPrefix(key, CounterPrefix) {
		var n int
		if _, err := fmt.Sscan(value, &n); err != nil || n <= 1 {
			return ""
		}
		return fmt.Sprint(n - 1)
	}
	cut := strings.LastIndex(value, " ")
	return value[:max(0, cut)]
}
