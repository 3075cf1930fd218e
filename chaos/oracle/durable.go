package oracle

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// Durable is O4: every acknowledged write is in the log, and every member holds
// what the log makes: the keys with their revisions, and the leases.
func Durable(c *Case) []error {
	var f findings
	for _, op := range c.Ops {
		if op.Outcome == history.OK && !op.ReadOnly() && c.ops[op] == nil {
			f.add("op %d of client %d, acknowledged by member %x at %v with revision %d, is not in the log: %v",
				op.ID, op.Client, op.Member, op.Return, op.Revision(), op.Request)
		}
	}
	keys, leases := c.Model.Keys(), c.Model.Leases()
	for _, s := range c.States {
		switch {
		case s.Revision != c.Model.Rev:
			f.add("member %x is at revision %d, the log at %d", s.Member, s.Revision, c.Model.Rev)
		case s.Compact != c.Model.Compact && !c.mayCompact(s.Compact):
			f.add("member %x is compacted at %d, the log at %d", s.Member, s.Compact, c.Model.Compact)
		case !slices.Equal(s.Keys, keys):
			f.add("member %x: %s", s.Member, differs(keys, s.Keys))
		case !c.sameLeases(s.Leases, leases):
			f.add("member %x has leases %v, the log %v", s.Member, s.Leases, leases)
		}
	}
	return f
}

// sameLeases: without a log nobody is told when a lease without keys ends, nor
// whether one was granted whose grant has an unknown outcome.
func (c *Case) sameLeases(got, log map[int64]int64) bool {
	if !c.derived {
		return maps.Equal(got, log)
	}
	for id, ttl := range got {
		if log[id] != ttl && c.maybe[id] == nil {
			return false
		}
	}
	return true
}

// mayCompact: a compaction of unknown outcome happened, and left no trace but this.
func (c *Case) mayCompact(at int64) bool {
	return c.derived && slices.ContainsFunc(c.Ops, func(op *history.Op) bool {
		r, ok := op.Request.(*pb.CompactionRequest)
		return ok && op.Outcome == history.Unknown && r.Revision == at && at > c.Model.Compact
	})
}

func differs(want, got []history.KV) string {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			return fmt.Sprintf("has %+v, which the log has not", got[i])
		case i >= len(got):
			return fmt.Sprintf("lacks %+v", want[i])
		case want[i] != got[i]:
			return fmt.Sprintf("has %+v, the log %+v", got[i], want[i])
		}
	}
	return ""
}

// Equal is O5: members at the same entry hold the same, down to the hash of the
// history and the rows beside the keys.
func Equal(c *Case) []error {
	var f findings
	for _, s := range c.States {
		first := c.States[0]
		switch {
		case s.Index != first.Index:
			f.add("member %x stands at entry %d, member %x at %d", s.Member, s.Index, first.Member, first.Index)
		case s.Hash != first.Hash:
			f.add("the hash of member %x is %08x, that of %x %08x", s.Member, s.Hash, first.Member, first.Hash)
		case !maps.Equal(s.Leases, first.Leases):
			f.add("member %x has leases %v, member %x %v", s.Member, s.Leases, first.Member, first.Leases)
		}
		for _, key := range slices.Sorted(maps.Keys(first.Rows)) {
			if s.Rows[key] != first.Rows[key] {
				f.add("row %s of member %x is %q, of member %x %q", key, s.Member, s.Rows[key], first.Member, first.Rows[key])
			}
		}
		if len(s.Rows) != len(first.Rows) {
			f.add("member %x has %d rows beside its keys, member %x %d", s.Member, len(s.Rows), first.Member, len(first.Rows))
		}
	}
	return f
}

// Once is O8: the log has no write that nobody asked for or that was asked for
// only once and is there twice.
func Once(c *Case) []error {
	f := findings(slices.Clone(c.again))
	for _, p := range c.twice {
		f.add("entry %d of term %d holds a write beyond those that clients asked for: %v", p.index, p.term, p.Request)
	}
	return f
}

// What keys are for shows in their names.
const (
	// CounterPrefix begins the keys that only compare-and-swap changes; their values
	// begin with numbers.
	CounterPrefix = "counter/"
	// ListPrefix begins the keys whose values are lists of tags that only grow.
	ListPrefix = "list/"
	// FencePrefix begins the keys that are written under a lock; their values begin
	// with its token.
	FencePrefix = "fence/"
)

// Counters is the other half of O8: a counter that is raised by compare-and-swap
// has lost no acknowledged raise and counted none twice.
func Counters(c *Case) []error {
	var f findings
	acked, maybe := map[string]int{}, map[string]int{}
	for _, op := range c.Ops {
		key, ok := raises(op)
		switch {
		case !ok:
		case op.Outcome == history.Unknown:
			maybe[key]++
		case op.Outcome == history.OK && op.Response.(*pb.TxnResponse).Succeeded:
			acked[key]++
		}
	}
	for _, s := range c.States {
		for _, kv := range s.Keys {
			if !strings.HasPrefix(kv.Key, CounterPrefix) {
				continue
			}
			n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(kv.Value, " ", 2)[0]))
			if low, high := acked[kv.Key], acked[kv.Key]+maybe[kv.Key]; err != nil || n < low || n > high {
				f.add("%s of member %x is %q; %d raises were acknowledged and %d more are possible", kv.Key, s.Member, kv.Value, low, high-low)
			}
		}
	}
	return f
}

func raises(op *history.Op) (key string, ok bool) {
	t, ok := op.Request.(*pb.TxnRequest)
	if !ok || len(t.Success) == 0 || t.Success[0].GetRequestPut() == nil {
		return "", false
	}
	key = string(t.Success[0].GetRequestPut().Key)
	return key, strings.HasPrefix(key, CounterPrefix)
}
