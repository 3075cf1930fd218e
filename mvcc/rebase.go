package mvcc

import (
	"fmt"
	"math"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// Rebase says how a database becomes the beginning of a new log.
type Rebase struct {
	Index api.Index // where the new log says the state stands
	Term  api.Term
	// Bump, unless it is 0, is added to the revision, and all history is given
	// up: a client that knows a revision of the old cluster, be it one after the
	// snapshot, is told that it was compacted and lists anew.
	Bump int64
	// Ops are changes of other buckets, made in the same commit.
	Ops []engine.Op
}

// Apply changes the database in one commit and returns its revision. No store
// may have the engine open. Every record is verified by the next Open.
func (r Rebase) Apply(e engine.Engine) (api.Revision, error) {
	view, err := e.View()
	if err != nil {
		return 0, fmt.Errorf("mvcc: rebase: %w", err)
	}
	defer view.Release()
	batch := &engine.Batch{Ops: r.Ops}
	rev, err := r.lastRevision(view, batch)
	if err != nil {
		return 0, fmt.Errorf("mvcc: rebase: %w", err)
	}
	pos, err := readPosition(view)
	if err != nil {
		// etcd went on with a file of ours and left our rows as they were. They are
		// wrong now, and the records that it wrote have no checksums.
		for _, row := range [][]byte{metaTrusted, metaChain} {
			batch.Delete(engine.Meta, row)
		}
		pos.foreign = true
	}
	compact := max(pos.scheduled, pos.finished)
	rev = max(rev, compact, 1)
	if r.Bump > 0 {
		if int64(rev) > math.MaxInt64/2-r.Bump {
			return 0, fmt.Errorf("mvcc: rebase: revision %d cannot be raised by %d", rev, r.Bump)
		}
		rev += api.Revision(r.Bump)
		putRevision(batch, metaScheduled, rev)
	}
	n := len(batch.Ops)
	putPosition(batch, r.Index, r.Term, pos.trusted)
	if pos.foreign {
		batch.Ops = batch.Ops[:n+2] // without the row that vouches for checksums
	}
	if err := e.Commit(batch); err != nil {
		return 0, fmt.Errorf("mvcc: rebase: %w", err)
	}
	return rev, nil
}

// lastRevision finds the newest record. It deletes what etcdutl writes to raise
// a revision, a record without a key: the compaction mark beside it says the same.
func (r Rebase) lastRevision(view engine.View, batch *engine.Batch) (last api.Revision, err error) {
	view.Scan(engine.Key, nil, nil, func(k, v []byte) bool {
		var rev revision
		if rev, err = parseRevision(k); err != nil {
			return false
		}
		last = rev.main
		if len(v) == 0 {
			batch.Delete(engine.Key, append([]byte(nil), k...))
		}
		return true
	})
	return last, err
}
