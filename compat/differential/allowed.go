package differential

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// What may differ between etcd and kvd, on purpose or because etcd's own answer is
// a matter of timing, and nothing else.

// withoutPrevAtCompacted is the one thing about watches that is allowed to differ:
// the previous value of an event exactly at the compacted revision. etcd sends the
// event without it; kvd sends it while it is still stored, and otherwise cancels
// the watch with compact_revision, because a kube-apiserver takes an event that
// lacks it for damage. Such a watch is compared without previous values;
// TestPrevAtCompacted shows what each store does with them.
func (r *runner) withoutPrevAtCompacted(req *pb.WatchCreateRequest) {
	if req.StartRevision > 0 && req.StartRevision == r.state.compacted {
		req.PrevKv = false
	}
}

// compactionHash is a hash that is allowed to differ, and is not asked for: for a
// revision at which the history was compacted, etcd gives the hash it made on the
// way, once it has made it. kvd makes such hashes only with the feature gate CompactHashCheck.
func (r *runner) compactionHash(op Op) bool {
	if op.Kind != HashKV {
		return false
	}
	at := resolve(op.Req, r.state, nil).(*pb.HashKVRequest).Revision
	// A compaction at 0, which only the first can be, leaves a hash that etcd takes
	// for the latest one's from then on.
	return at > 0 && at <= r.state.compacted || at == 0 && r.zeroHash
}
