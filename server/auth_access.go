package server

import (
	"context"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/mvcc"
)

// What a request does with keys is told by the request itself, in one place:
// admission and apply ask the same question about the same bytes. What is asked
// for follows from what is executed and from what the answer shows, not from the
// kind of the request: a put that shows the previous value reads.

// access is one thing that a request does with keys.
type access struct {
	kind     accessKind
	key, end []byte      // as in requests; spanOf and inRange read them alike
	lease    api.LeaseID // of useLease and seeLease
}

type accessKind uint8

const (
	readKeys  accessKind = iota + 1
	writeKeys            // or delete
	useLease             // renew it, end it, or attach to it: as much as writing all its keys
	seeLease             // show its keys, or that it is there
)

// accessor is a request that tells what it does.
type accessor interface {
	// accesses calls visit until it returns an error. The order is etcd's.
	accesses(visit func(access) error) error
}

func (r *rangeRequest) accesses(visit func(access) error) error {
	return visit(access{kind: readKeys, key: r.key, end: r.end})
}

// accesses of a put: it writes the key, makes it share the fate of the lease's
// other keys, and may show the previous value. With ignore_value and ignore_lease
// it keeps what the key has, without showing it.
func (r *putRequest) accesses(visit func(access) error) error {
	if err := visit(access{kind: writeKeys, key: r.key}); err != nil {
		return err
	}
	if r.lease != 0 {
		if err := visit(access{kind: useLease, lease: r.lease}); err != nil {
			return err
		}
	}
	if !r.prevKV {
		return nil
	}
	return visit(access{kind: readKeys, key: r.key})
}

func (r *deleteRequest) accesses(visit func(access) error) error {
	if err := visit(access{kind: writeKeys, key: r.key, end: r.end}); err != nil || !r.prevKV {
		return err
	}
	return visit(access{kind: readKeys, key: r.key, end: r.end})
}

// accesses of a transaction are those of its compares, whose outcome it shows,
// and of both branches, whichever is taken.
func (r *txnRequest) accesses(visit func(access) error) error {
	for i := range r.compares {
		if err := visit(access{kind: readKeys, key: r.compares[i].key, end: r.compares[i].end}); err != nil {
			return err
		}
	}
	for _, ops := range [][]op{r.success, r.failure} {
		for i := range ops {
			if err := ops[i].accesses(visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *op) accesses(visit func(access) error) error {
	switch {
	case o.rng != nil:
		return o.rng.accesses(visit)
	case o.put != nil:
		return o.put.accesses(visit)
	case o.del != nil:
		return o.del.accesses(visit)
	case o.txn != nil:
		return o.txn.accesses(visit)
	}
	return api.ErrPermissionDenied // no operation that this member knows
}

// leaseAccess is a request about one lease.
type leaseAccess struct {
	kind accessKind
	id   api.LeaseID
}

func (l leaseAccess) accesses(visit func(access) error) error {
	return visit(access{kind: l.kind, lease: l.id})
}

// leaseList is a request that shows which leases there are.
type leaseList []api.LeaseID

func (l leaseList) accesses(visit func(access) error) error {
	if len(l) == 0 {
		return visit(access{kind: seeLease}) // no lease, but the list is not for everybody
	}
	for _, id := range l {
		if err := visit(access{kind: seeLease, lease: id}); err != nil {
			return err
		}
	}
	return nil
}

// watchRange is a watch's range, as the hub will match it.
type watchRange struct{ key, end []byte }

func (w watchRange) accesses(visit func(access) error) error {
	return visit(access{kind: readKeys, key: w.key, end: w.end})
}

// guard checks accesses against one principal's rights in one state.
type guard struct {
	state     *auth.State
	who       auth.Principal
	leaseKeys func(api.LeaseID) [][]byte
}

// check refuses the request if any of its accesses is not permitted.
func (g *guard) check(r accessor) error {
	if !g.state.Enabled {
		return nil
	}
	return r.accesses(g.visit)
}

func (g *guard) visit(a access) error {
	switch a.kind {
	case readKeys:
		return g.state.MayRead(g.who, a.key, a.end)
	case writeKeys:
		return g.state.MayWrite(g.who, a.key, a.end)
	case useLease:
		return g.eachKey(a.lease, g.state.MayWrite)
	case seeLease:
		return g.eachKey(a.lease, g.state.MayRead)
	}
	return api.ErrPermissionDenied
}

// eachKey asks about all keys of a lease. Administrators need not be asked key by
// key. A lease that is not there, or has no keys, is anybody's who is known.
func (g *guard) eachKey(id api.LeaseID, may func(auth.Principal, []byte, []byte) error) error {
	if err := g.state.MustBeKnown(g.who); err != nil {
		return err
	}
	if g.state.MayAdminister(g.who) == nil {
		return nil
	}
	return g.keys(g.leaseKeys(id), may)
}

func (g *guard) keys(keys [][]byte, may func(auth.Principal, []byte, []byte) error) error {
	for _, key := range keys {
		if err := may(g.who, key, nil); err != nil {
			return err
		}
	}
	return nil
}

// leaseKeysOf lists the keys that are attached to a lease of the store.
func leaseKeysOf(store *mvcc.Store) func(api.LeaseID) [][]byte {
	return func(id api.LeaseID) [][]byte {
		info, ok := store.Lease(id)
		if !ok {
			return nil
		}
		return info.Keys()
	}
}

// permitRenew asks whether the caller may keep a lease alive.
func (s *Server) permitRenew(ctx context.Context, id api.LeaseID) error {
	if !s.auth.now.Load().Enabled {
		return nil
	}
	who, err := s.permit(ctx, func(state *auth.State, who auth.Principal) error {
		g := guard{state: state, who: who, leaseKeys: leaseKeysOf(s.Store())}
		return g.check(leaseAccess{useLease, id})
	})
	if err != nil {
		return err
	}
	return s.fresh(who)
}

// showLeaseKeys asks whether the caller may see the keys that the leader named.
func (s *Server) showLeaseKeys(who auth.Principal, keys [][]byte) error {
	g := s.guard(who)
	if !g.state.Enabled {
		return nil
	}
	if g.state.MayAdminister(who) != nil {
		if err := g.keys(keys, g.state.MayRead); err != nil {
			return err
		}
	}
	return g.state.Fresh(who)
}
