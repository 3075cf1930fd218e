package workload

import (
	"fmt"
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
)

const (
	registryPage = 50
	eventTTL     = 10 // seconds
	eventsALease = 20
	registryHeld = 100 // objects that a client knows at most
)

// registryKinds are what is kept, and how many objects of each there may be.
var registryKinds = []struct {
	path    string
	objects int
}{
	{"/registry/pods/default/", 400}, {"/registry/configmaps/kube-system/", 40}, {"/registry/leases/kube-node-lease/", 20},
}

// Registry does what the API server of Kubernetes does with its store: objects
// are created if they are not there, changed and deleted if they are as they were
// seen, listed page by page at one revision, counted; events live on leases.
type Registry struct {
	tagger
	known  map[string]known
	page   *pb.RangeRequest // the next one of a list that goes on
	id     int64            // of the lease of events
	events int
}

// NewRegistry makes a client's part; values are up to size bytes longer than
// their tags.
func NewRegistry(client int, r *rand.Rand, size int) *Registry {
	return &Registry{tagger: tagger{client: client, r: r, size: size}, known: map[string]known{}}
}

func (g *Registry) object() string {
	k := registryKinds[g.r.IntN(len(registryKinds))]
	return fmt.Sprintf("%s%s-%03d", k.path, k.path[10:13], g.r.IntN(k.objects))
}

// Next draws what the API server is asked for.
func (g *Registry) Next() (string, proto.Message) {
	if g.page != nil {
		q := g.page
		g.page = nil
		return methodRange, q
	}
	key := g.object()
	was, seen := g.known[key]
	switch n := g.r.IntN(100); {
	case n < 40: // create, or change what is known
		return methodTxn, guarded([]byte(key), was.mod, g.value())
	case n < 55 && seen:
		return methodTxn, &pb.TxnRequest{
			Compare: []*pb.Compare{changedAt(key, was.mod)},
			Success: []*pb.RequestOp{deleteOp(&pb.DeleteRangeRequest{Key: []byte(key)})},
			Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: []byte(key)})},
		}
	case n < 80:
		return methodRange, &pb.RangeRequest{Key: []byte(key)}
	case n < 88:
		path := registryKinds[g.r.IntN(len(registryKinds))].path
		return methodRange, &pb.RangeRequest{Key: []byte(path), RangeEnd: prefixEnd(path), Limit: registryPage}
	case n < 92:
		return methodRange, &pb.RangeRequest{Key: []byte("/registry/pods/"), RangeEnd: prefixEnd("/registry/pods/"), CountOnly: true}
	}
	return g.event()
}

// event writes an event, on a lease that some of them share.
func (g *Registry) event() (string, proto.Message) {
	if g.id == 0 || g.events >= eventsALease {
		g.events, g.id = 0, 0
		return methodGrant, &pb.LeaseGrantRequest{ID: g.lease(), TTL: eventTTL}
	}
	g.events++
	key := fmt.Appendf(nil, "/registry/events/default/%s", g.tag())
	return methodTxn, &pb.TxnRequest{
		Compare: []*pb.Compare{changedAt(string(key), 0)},
		Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: key, Value: g.value(), Lease: g.id})},
		Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: key})},
	}
}

// prefixEnd ends the range of the keys with a prefix, whose last byte is not 255.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}

// Learn keeps what objects are, and what a list must go on with.
func (g *Registry) Learn(op *history.Op) {
	if op.Outcome != history.OK {
		if _, txn := op.Request.(*pb.TxnRequest); txn {
			clear(g.known) // a guard may rest on what was overwritten by itself
			g.id = 0
		}
		return
	}
	switch r := op.Response.(type) {
	case *pb.LeaseGrantResponse:
		g.id = r.ID
	case *pb.TxnResponse:
		learnTxn(g.known, op.Request.(*pb.TxnRequest), r)
	case *pb.RangeResponse:
		q := op.Request.(*pb.RangeRequest)
		if len(q.RangeEnd) == 0 {
			learnRange(g.known, string(q.Key), r)
		} else if r.More && g.r.IntN(4) > 0 {
			last := r.Kvs[len(r.Kvs)-1].Key
			rev := q.Revision
			if rev == 0 {
				rev = r.Header.Revision
			}
			g.page = &pb.RangeRequest{Key: append(last[:len(last):len(last)], 0), RangeEnd: q.RangeEnd, Limit: q.Limit, Revision: rev}
		}
	}
	if len(g.known) > registryHeld {
		clear(g.known)
	}
}
