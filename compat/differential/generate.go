package differential

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// watchStreams is how many watch streams are open; the last one holds the
// watches that start far in the future, which by contract silence a stream's
// progress, and is therefore never asked for it.
const (
	watchStreams = 4
	futureStream = watchStreams - 1
)

// Generator makes operations. It is a pure function of its seed.
type Generator struct {
	r     *rand.Rand
	auth  bool
	keys  [][]byte
	next  []Op // to be emitted before anything new
	named int  // locks and elections so far
}

// NewGenerator starts the sequence of a seed, with authentication switched on or
// without users.
func NewGenerator(seed uint64, auth bool) *Generator {
	g := &Generator{r: rand.New(rand.NewPCG(seed, 0x6b65656c736f6e)), auth: auth, keys: keyPool()}
	if auth {
		g.authSetup()
	}
	// Watches on everything from the first revision on.
	all := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true, StartRevision: 1}
	g.next = append(g.next,
		Op{Kind: Watch, Stream: 0, Req: all},
		Op{Kind: Watch, Stream: 0, Req: &pb.WatchCreateRequest{Key: []byte("a/"), RangeEnd: []byte("a0")}},
		Op{Kind: Watch, Stream: 2, Req: &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true, Fragment: true, WatchId: 5}},
	)
	return g
}

// keyPool is small, so that keys meet again, and has shared prefixes, keys that
// are prefixes of others, and the bytes that end ranges.
func keyPool() [][]byte {
	var keys [][]byte
	for _, p := range []string{"", "a/", "a/b/", "a0", "b\x00", "\xff"} {
		for _, s := range []string{"", "0", "1", "2", "3", "4", "5", "6", "\x00", "z", "\xff"} {
			if p+s != "" {
				keys = append(keys, []byte(p+s))
			}
		}
	}
	return keys
}

type weight struct {
	kind   Kind
	weight int
}

// weights of the kinds, per mille or so.
var weights = []weight{
	{Put, 300}, {Range, 230}, {RangeStream, 60}, {Delete, 80}, {Txn, 200}, {Compact, 6},
	{Grant, 25}, {Revoke, 15}, {KeepAlive, 15}, {TimeToLive, 25}, {Leases, 4},
	{Watch, 9}, {CancelWatch, 8}, {SyncWatch, 2},
	{MemberList, 3}, {Status, 3}, {Alarm, 3}, {Hash, 1}, {HashKV, 2}, {Defragment, 1}, {Lock, 4}, {Campaign, 4},
}

// authWeights come on top when authentication is on.
var authWeights = []weight{
	{AuthEnable, 1}, {AuthStatus, 4}, {Authenticate, 6},
	{UserAdd, 8}, {UserGet, 8}, {UserList, 3}, {UserDelete, 4}, {UserChangePassword, 5}, {UserGrantRole, 14}, {UserRevokeRole, 8},
	{RoleAdd, 6}, {RoleGet, 8}, {RoleList, 3}, {RoleDelete, 3}, {RoleGrantPermission, 25}, {RoleRevokePermission, 12},
}

// Next makes the next operation.
func (g *Generator) Next() Op {
	if len(g.next) > 0 {
		op := g.next[0]
		g.next = g.next[1:]
		return op
	}
	all, total := weights, 0
	if g.auth {
		all = slices.Concat(weights, authWeights)
	}
	for _, w := range all {
		total += w.weight
	}
	n := g.r.IntN(total)
	for _, w := range all {
		if n -= w.weight; n < 0 {
			return g.make(w.kind)
		}
	}
	panic("unreachable: weights do not add up")
}

// op is an operation without its request.
func (g *Generator) op(kind Kind) Op {
	return Op{Kind: kind, Member: g.r.IntN(3), User: g.sender()}
}

func (g *Generator) make(kind Kind) Op {
	switch kind {
	case MemberList, Status, Alarm, Hash, HashKV, Defragment:
		return g.maintenance(kind)
	case Lock:
		return g.lock()
	case Campaign:
		return g.election()
	}
	if strings.HasPrefix(rpcs[kind], "Auth/") {
		return g.authChange(kind)
	}
	op := g.op(kind)
	switch kind {
	case Put:
		op.Req = g.put(true)
	case Range:
		op.Req = g.rang()
	case RangeStream:
		op.Req = g.rangeStream()
	case Delete:
		op.Req = g.deleteRange()
	case Txn:
		op.Req = g.txn()
	case Compact:
		op.Req = &pb.CompactionRequest{Revision: g.compactRevision(), Physical: g.chance(0.5)}
	case Grant:
		op.Req = g.grant(op)
	case Revoke:
		op.Req = &pb.LeaseRevokeRequest{ID: g.lease()}
	case KeepAlive:
		op.Req = &pb.LeaseKeepAliveRequest{ID: g.lease()}
	case TimeToLive:
		op.Req = &pb.LeaseTimeToLiveRequest{ID: g.lease(), Keys: g.chance(0.7)}
	case Leases:
		op.Req = &pb.LeaseLeasesRequest{}
	case Watch:
		op.Stream, op.Req = g.watch()
	case CancelWatch:
		op.Stream = g.r.IntN(watchStreams)
		op.Req = &pb.WatchCancelRequest{WatchId: g.r.Int64N(24) - 1}
	case SyncWatch:
		op.Req = &pb.WatchProgressRequest{}
	}
	return op
}

func (g *Generator) chance(p float64) bool { return g.r.Float64() < p }

// key is one of the pool; the first ones come more often.
func (g *Generator) key() []byte {
	switch {
	case g.chance(0.003):
		return nil
	case g.chance(0.4):
		return g.keys[g.r.IntN(12)]
	}
	return g.keys[g.r.IntN(len(g.keys))]
}

// rangeEnd gives every form of an end: none, "from key", prefix, another key
// (which may lie before the first), the key itself, its successor.
func (g *Generator) rangeEnd(key []byte) []byte {
	switch g.r.IntN(10) {
	case 0, 1, 2:
		return nil
	case 3:
		return []byte{0}
	case 4, 5:
		return prefixEnd(key)
	case 6:
		return key
	case 7:
		return append(bytes.Clone(key), 0)
	}
	end := g.key()
	// Whether etcd finds a permission for a range that ends before it begins
	// depends on the shape of a tree, with more than one permission.
	if g.auth && bytes.Compare(end, key) < 0 && !bytes.Equal(end, []byte{0}) {
		return key
	}
	return end
}

func prefixEnd(key []byte) []byte {
	end := bytes.Clone(key)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// readRevision is where a read looks: mostly now, else around the interesting
// points of history.
func (g *Generator) readRevision() int64 {
	if g.chance(0.6) {
		return 0
	}
	return g.revision()
}

func (g *Generator) revision() int64 {
	switch g.r.IntN(12) {
	case 0:
		return 0
	case 1:
		return 1
	case 2:
		return symCurrent + 1
	case 3:
		return symCurrent
	case 4:
		return symCompacted
	case 5:
		return symCompacted - 1
	case 6:
		return symCompacted + 1
	case 7:
		if g.chance(0.2) {
			return -g.r.Int64N(3)
		}
		return math.MaxInt64
	case 8:
		return symCompacted + g.r.Int64N(50)
	}
	return symCurrent - g.r.Int64N(100)
}

func (g *Generator) compactRevision() int64 {
	if g.chance(0.5) {
		return symCurrent - g.r.Int64N(20)
	}
	return g.revision()
}

// lease names a lease: the generator's own ids are few, so that they meet.
func (g *Generator) lease() int64 {
	switch g.r.IntN(10) {
	case 0, 1, 2:
		return symLease + g.r.Int64N(1000)
	case 3:
		return []int64{-1, -3, math.MaxInt64, math.MinInt64, 99, 0}[g.r.IntN(6)]
	}
	return 1 + g.r.Int64N(20)
}

// grant asks for a lease. Those that would run out during the test are revoked
// by the very next operation.
func (g *Generator) grant(like Op) *pb.LeaseGrantRequest {
	req := &pb.LeaseGrantRequest{ID: 1 + g.r.Int64N(20), TTL: 50_000 + g.r.Int64N(50_000)}
	switch g.r.IntN(20) {
	case 0, 1, 2, 3:
		req.ID = 0
	case 4:
		req.ID = []int64{-1, -3, math.MaxInt64, math.MinInt64}[g.r.IntN(4)]
	case 5:
		req.TTL = []int64{9_000_000_000, 9_000_000_001, math.MaxInt64}[g.r.IntN(3)]
	case 6:
		req.TTL = []int64{0, -1, 1, 2, math.MinInt64}[g.r.IntN(5)]
		g.next = append(g.next, Op{Kind: Revoke, Member: like.Member, User: like.User, Req: &pb.LeaseRevokeRequest{ID: req.ID}})
	}
	return req
}

func (g *Generator) watch() (stream int, req *pb.WatchCreateRequest) {
	key := g.key()
	req = &pb.WatchCreateRequest{Key: key, RangeEnd: g.rangeEnd(key), PrevKv: g.chance(0.6), Fragment: g.chance(0.3)}
	if g.chance(0.02) {
		req.Key = nil
	}
	if g.chance(0.3) {
		req.WatchId = g.r.Int64N(22)
	}
	for _, f := range []pb.WatchCreateRequest_FilterType{0, 1, 2} {
		if g.chance(0.08) {
			req.Filters = append(req.Filters, f)
		}
	}
	req.ProgressNotify = g.chance(0.2)
	stream = g.r.IntN(watchStreams - 1)
	switch g.r.IntN(10) {
	case 0:
		req.StartRevision = symCurrent + 1
	case 1:
		req.StartRevision = symCurrent - g.r.Int64N(60)
	case 2:
		req.StartRevision = symCompacted + g.r.Int64N(3) - 1
	case 3:
		req.StartRevision = symCurrent + g.r.Int64N(12)
	case 4:
		if g.chance(0.2) {
			req.StartRevision = -1 - g.r.Int64N(2)
		}
	case 5:
		stream = futureStream
		req.StartRevision = []int64{math.MaxInt64, symCurrent + 1_000_000}[g.r.IntN(2)]
	}
	return stream, req
}
