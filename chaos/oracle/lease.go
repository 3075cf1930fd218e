package oracle

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

// leaseSlack is the coarseness of timers.
const leaseSlack = 20 * time.Millisecond

// Leases is O7: no lease ends by expiry before its TTL has passed since the last
// renewal that was answered was sent (or since it was granted).
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
		}
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
