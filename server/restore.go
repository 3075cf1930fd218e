package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/planted"
	"github.com/keelson-io/keelson/raft"
	"github.com/keelson-io/keelson/raft/vfs"
)

// ErrSnapshotDamaged: a snapshot does not match its SHA-256, has none, or holds
// what no store wrote.
var ErrSnapshotDamaged = errors.New("the snapshot is damaged")

// snapshotAlign is what the size of a database file is a multiple of; what is
// left over is the digest. Etcd's rule.
const snapshotAlign = 512

// Restore makes the data directory of one member of a new cluster from a
// snapshot, ours or etcd's. All members of the new cluster are made from the
// same file, each with its own Name.
//
// All of them begin as if one entry for each member had been agreed on in term
// 1: with equal states at that index and empty logs behind it.
type Restore struct {
	// Config names the directories, the members (Name, InitialCluster,
	// ClusterToken, AdvertisePeerURLs) and the world.
	Config
	Snapshot io.ReaderAt
	Size     int64
	// SkipHashCheck takes a file without digest, such as the database of a
	// stopped member, or with a wrong one.
	SkipHashCheck bool
	// BumpRevision, unless it is 0, raises the revision and gives up the history;
	// see mvcc.Rebase.
	BumpRevision int64
	// Progress, if not nil, is told of the bytes that were copied.
	Progress func(done, total int64)
}

// Restored says what a member was made of.
type Restored struct {
	Cluster  api.ClusterID
	Member   api.MemberID
	Members  []Member
	Revision api.Revision
	Keys     int
	Leases   int
	Alarms   int // that were in the snapshot and were left out
}

// Run makes the directory.
//
// The identity is written last: a crash before leaves a directory that kvd and
// the next restore refuse, after it the member is complete. An error leaves
// nothing behind.
func (r *Restore) Run(ctx context.Context) (out Restored, err error) {
	members, err := parseInitialCluster(r.InitialCluster, r.ClusterToken)
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	h := &home{cfg: &r.Config}
	if h.identity, err = h.beginCluster(members, r.ClusterToken); err != nil {
		return out, err
	}
	h.identity.Incarnation, h.identity.Started = newIncarnation(r.Seed, h.id()), true
	out.Cluster, out.Member, out.Members = h.cluster(), h.id(), members
	if err := r.vacant(); err != nil {
		return out, err
	}
	for _, dir := range []string{r.snapDir(), r.walDir()} {
		if err := makeDir(r.FS, dir); err != nil {
			return out, err
		}
	}
	lock, err := r.FS.Lock(r.lockPath())
	if err != nil {
		return out, fmt.Errorf("%w: %s", ErrDirInUse, r.DataDir)
	}
	defer lock.Close()
	defer func() {
		if err != nil {
			r.clean()
		}
	}()
	if err := r.copy(ctx); err != nil {
		return out, err
	}
	index := api.Index(len(members))
	if err := r.rebase(&out, index); err != nil {
		return out, err
	}
	if err := raft.BeginLog(r.FS, r.walDir(), h.cluster(), h.id(), index, 1); err != nil {
		return out, err
	}
	if err := r.FS.SyncDir(r.snapDir()); err != nil {
		return out, err
	}
	return out, writeIdentity(r.FS, r.identityPath(), h.identity)
}

// vacant refuses directories with something in them.
func (r *Restore) vacant() error {
	for _, dir := range []string{r.DataDir, r.walDir()} {
		entries, err := r.FS.List(dir)
		if err != nil && !errors.Is(err, vfs.ErrNotExist) {
			return err
		}
		entries = slices.DeleteFunc(entries, func(e vfs.Info) bool { return e.Name == "LOCK" })
		if len(entries) > 0 {
			return fmt.Errorf("%w: %s is not empty (%s): a snapshot is restored into a new directory", ErrConfig, dir, entries[0].Name)
		}
	}
	return nil
}

// clean removes what an unfinished restore has made, as far as that is possible.
func (r *Restore) clean() {
	for _, dir := range []string{r.walDir(), r.snapDir(), r.memberDir()} {
		entries, _ := r.FS.List(dir)
		for _, e := range entries {
			_ = r.FS.Remove(dir + "/" + e.Name)
		}
		_ = r.FS.Remove(dir)
	}
}

// copy brings the snapshot to the place of the database and proves it whole.
func (r *Restore) copy(ctx context.Context) error {
	var digest []byte
	size := r.Size
	switch {
	case size%snapshotAlign == sha256.Size:
		size -= sha256.Size
		digest = make([]byte, sha256.Size)
		if _, err := r.Snapshot.ReadAt(digest, size); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the snapshot: %w", err)
		}
	case !r.SkipHashCheck:
		return fmt.Errorf("%w: it has no SHA-256 at its end; the database of a stopped member has none, and is taken with --skip-hash-check", ErrSnapshotDamaged)
	}
	f, err := r.FS.Create(r.dbPath())
	if err != nil {
		return fmt.Errorf("copy the snapshot: %w", err)
	}
	sum := sha256.New()
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size && err == nil; {
		n := min(int64(len(buf)), size-at)
		if _, err = r.Snapshot.ReadAt(buf[:n], at); err != nil {
			break
		}
		sum.Write(buf[:n])
		if _, err = f.WriteAt(buf[:n], at); err != nil {
			break
		}
		at += n
		if r.Progress != nil {
			r.Progress(at, size)
		}
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("copy the snapshot: %w", err)
	}
	if !r.SkipHashCheck && !bytes.Equal(sum.Sum(nil), digest) {
		return fmt.Errorf("%w: its SHA-256 is %x, its end says %x", ErrSnapshotDamaged, sum.Sum(nil), digest)
	}
	return nil
}

// rebase makes the database the state at index of the new cluster, and reads all
// of it once.
func (r *Restore) rebase(out *Restored, index api.Index) error {
	e, err := r.openEngine(r.dbPath())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSnapshotDamaged, err)
	}
	defer e.Close()
	ops, alarms, err := newClusterRows(e, out.Members)
	if err != nil {
		return err
	}
	out.Alarms = alarms
	if out.Revision, err = (mvcc.Rebase{Index: index, Term: 1, Bump: r.BumpRevision, Ops: ops}).Apply(e); err != nil {
		return damagedSnapshot(err)
	}
	store, err := mvcc.Open(mvcc.Config{Clock: r.Clock, Engine: e, Logger: r.Logger})
	if err != nil {
		return damagedSnapshot(err)
	}
	stats := store.Stats()
	out.Keys, out.Leases = stats.Keys, stats.Leases
	if rev := store.Revision(); rev != out.Revision {
		err = fmt.Errorf("%w: revision %d, not %d", ErrSnapshotDamaged, rev, out.Revision)
	}
	return errors.Join(err, store.Close())
}

func damagedSnapshot(err error) error {
	if errors.Is(err, mvcc.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrSnapshotDamaged, err)
	}
	return err
}

// newClusterRows are the changes that make a database one of a new cluster: its
// members, Raft's view of them, no version agreed on yet, and no alarm, which
// would be of members that are gone.
func newClusterRows(e engine.Engine, members []Member) (ops []engine.Op, alarms int, err error) {
	view, err := e.View()
	if err != nil {
		return nil, 0, err
	}
	defer view.Release()
	for _, b := range []engine.Bucket{engine.Members, engine.MembersRemoved, engine.Cluster, engine.Alarm} {
		view.Scan(b, nil, nil, func(k, _ []byte) bool {
			if planted.RestoreKeepsMembers && b == engine.Members {
				return false
			}
			ops = append(ops, engine.Op{Bucket: b, Key: bytes.Clone(k)})
			if b == engine.Alarm {
				alarms++
			}
			return true
		})
	}
	state := &raftpb.ConfState{}
	for _, m := range members {
		row, err := json.Marshal(m)
		if err != nil {
			return nil, 0, err
		}
		state.Voters = append(state.Voters, uint64(m.ID))
		ops = append(ops, engine.Op{Bucket: engine.Members, Key: []byte(m.ID.String()), Value: row})
	}
	row, err := json.Marshal(state)
	if err != nil {
		return nil, 0, err
	}
	return append(ops, engine.Op{Bucket: engine.Meta, Key: []byte(confStateKey), Value: row}), alarms, nil
}
