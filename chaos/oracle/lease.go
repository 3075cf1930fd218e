package oracle

import (
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// leaseSlack is the coarseness of timers.
const leaseSlack = 20 * time.Millisecond

// Leases is O7: no lease ends by expiry before its TTL has passed since the last
// renewal that was answered was sent (or since it was granted); and after faults
// have ended it ends soon after that.
func Leases(c *Case) []error {
	var f findings
	renewed := map[int64][]*history.Op{}
	for _, op := range c.Ops {
		if op.Outcome != history.OK {
			continue
		}
		switch r := op.Response.(type) {
		case *pb.LeaseGrantResponse:
			renewed[r.ID] = append(renewed[r.ID], op)
		case *pb.LeaseKeepAliveResponse:
			if r.TTL > 0 {
				renewed[r.ID] = append(renewed[r.ID], op)
			}
		}
	}
	granted := c.grants()
	for _, p := range c.placed {
		for _, id := range p.Removed {
			ttl := time.Duration(granted[id]) * time.Second
			least := ttl*time.Duration(1000-c.Drift)/1000 - leaseSlack
			for _, op := range renewed[id] {
				if op.Return < p.At && p.At < op.Call+least {
					f.add("lease %d of %v expired at %v (entry %d), %v after op %d renewed it",
						id, ttl, p.At, p.index, p.At-op.Call, op.ID)
				}
			}
			c.checkLate(&f, p, id, ttl, renewed[id])
		}
	}
	return f
}

// checkLate gives an expiry two election timeouts and a second, and some grace for
// a busy machine.
func (c *Case) checkLate(f *findings, p *placed, id int64, ttl time.Duration, renewed []*history.Op) {
	if c.Healed == 0 || len(renewed) == 0 {
		return
	}
	due := c.Healed + c.Election // a leader that is new then begins anew
	for _, op := range renewed {
		due = max(due, op.Return)
	}
	due += ttl*time.Duration(1000+c.Drift)/1000 + 2*c.Election + time.Second + calmGrace
	if p.At > due {
		f.add("lease %d of %v expired at %v (entry %d), at %v at the latest it had to", id, ttl, p.At, p.index, due)
	}
}

// Fenced is O7 for locks: what is written under a lock carries the lock's token,
// and the tokens never go back, although holders may be asleep beyond their lease.
func Fenced(c *Case) []error {
	var f findings
	newest := map[string]int64{}
	for _, e := range c.Model.Events {
		key := string(e.Kv.Key)
		if !strings.HasPrefix(key, FencePrefix) || e.Type == mvccpb.Event_DELETE {
			continue
		}
		first, _, _ := strings.Cut(string(e.Kv.Value), " ")
		token, err := strconv.ParseInt(first, 10, 64)
		if err != nil || token < newest[key] {
			f.add("%s was written with token %q at revision %d, after token %d", key, first, e.Kv.ModRevision, newest[key])
		}
		newest[key] = max(newest[key], token)
	}
	return f
}

func (c *Case) grants() map[int64]int64 {
	out := map[int64]int64{}
	for _, p := range c.placed {
		if g, ok := p.Request.(*pb.LeaseGrantRequest); ok && p.Err == nil {
			out[g.ID] = g.TTL
		}
	}
	return out
}
