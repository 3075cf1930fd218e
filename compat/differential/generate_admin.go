package differential

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
)

// notGenerated says of each RPC that no generator makes where it is compared.
var notGenerated = map[string]string{
	"Cluster/MemberAdd":      "membership: changes who runs",
	"Cluster/MemberRemove":   "membership: changes who runs",
	"Cluster/MemberUpdate":   "membership: changes who runs",
	"Cluster/MemberPromote":  "membership: changes who runs",
	"Maintenance/MoveLeader": "maintenance, ctl: who leads differs from run to run",
	"Maintenance/Downgrade":  "maintenance, ctl: works over seconds, in the background",
	"Maintenance/Snapshot":   "maintenance, ctl: the files are compared by what is in them",
	"Auth/AuthDisable":       "auth, ctl: ends all tokens, and the streams that use them",
}

// maintenance asks for what a member tells about itself and the cluster.
func (g *Generator) maintenance(kind Kind) Op {
	op := g.op(kind)
	switch kind {
	case MemberList:
		op.Req = &pb.MemberListRequest{Linearizable: g.chance(0.5)}
	case Status:
		op.Req = &pb.StatusRequest{}
	case Alarm:
		// Raising one would stop the writes that watches are brought up with.
		op.Req = &pb.AlarmRequest{Action: 2 * pb.AlarmRequest_AlarmAction(g.r.IntN(2)), MemberID: g.r.Uint64N(3), Alarm: pb.AlarmType(g.r.IntN(3))}
	case Hash:
		op.Req = &pb.HashRequest{}
	case HashKV:
		op.Req = &pb.HashKVRequest{Revision: g.revision()}
	case Defragment:
		op.Req = &pb.DefragmentRequest{}
	}
	return op
}

// recipeLease is a lease that nobody revokes; it is granted before it is used.
func (g *Generator) recipeLease(like Op) int64 {
	id := 1000 + g.r.Int64N(5)
	like.Kind, like.Req = Grant, &pb.LeaseGrantRequest{ID: id, TTL: 100_000}
	g.next = append(g.next, like)
	return id
}

// lock queues the life of a lock. No two leases ask for locks of one name, so
// nobody ever waits.
func (g *Generator) lock() Op {
	like := g.op(Lock)
	g.named++
	id := g.recipeLease(like)
	name := fmt.Appendf(nil, "lock%d", g.named)
	then := func(kind Kind, op Op) { op.Kind = kind; g.next = append(g.next, op) }
	ask := like
	ask.Req = &v3lockpb.LockRequest{Name: name, Lease: id}
	then(Lock, ask)
	if g.chance(0.3) {
		then(Lock, ask)
	}
	if g.chance(0.2) {
		like.Req = &v3lockpb.LockRequest{Name: name, Lease: 99}
		then(Lock, like)
	}
	if g.chance(0.8) {
		like.Req = &v3lockpb.UnlockRequest{Key: fmt.Appendf(nil, "%s/%x", name, id)}
		then(Unlock, like)
	}
	return g.Next()
}

// election queues the life of an election with one candidate. Whoever observes
// one without a leader waits, so only an election that surely has one is observed.
func (g *Generator) election() Op {
	like := g.op(Campaign)
	observed := g.chance(0.5)
	if observed {
		like.User = g.admin()
	}
	g.named++
	id := g.recipeLease(like)
	name := fmt.Appendf(nil, "elect%d", g.named)
	then := func(kind Kind, op Op) { op.Kind = kind; g.next = append(g.next, op) }
	ask, look := like, like
	ask.Req = &epb.CampaignRequest{Name: name, Lease: id, Value: g.smallValue()}
	look.Req = &epb.LeaderRequest{Name: name}
	if g.chance(0.3) {
		then(Leader, look)
	}
	then(Campaign, ask)
	then(Leader, look)
	if observed {
		then(Observe, look)
	}
	won := &epb.LeaderKey{Name: name, Key: fmt.Appendf(nil, "%s/%x", name, id), Rev: symCurrent, Lease: id}
	if g.chance(0.6) {
		like.Req = &epb.ProclaimRequest{Leader: won, Value: g.smallValue()}
		then(Proclaim, like)
		won = &epb.LeaderKey{Name: name, Key: won.Key, Rev: symCurrent - 1, Lease: id}
	}
	if g.chance(0.1) {
		won = nil
	}
	like.Req = &epb.ResignRequest{Leader: won}
	then(Resign, like)
	return g.Next()
}
