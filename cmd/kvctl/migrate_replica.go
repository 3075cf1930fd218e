package main

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// replica is the source's state as a store of our own, offline. One goroutine
// uses it. Its place in a log means nothing: a restore gives it another one.
type replica struct {
	path   string
	engine engine.Engine
	store  *mvcc.Store
}

// openReplica makes a replica of a snapshot file, which becomes its own.
func openReplica(path string) (*replica, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := os.Truncate(path, st.Size()-sha256.Size); err != nil { // received, so the digest is right
		return nil, err
	}
	// What a crash leaves is thrown away, so nothing is synced before the end.
	e, err := engine.OpenBolt(path, engine.BoltOptions{NoSync: true})
	if err != nil {
		return nil, err
	}
	if _, err := (mvcc.Rebase{Index: 1, Term: 1}).Apply(e); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	store, err := mvcc.Open(mvcc.Config{Clock: clock.System(), Engine: e})
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return &replica{path, e, store}, nil
}

func (r *replica) revision() int64 { return int64(r.store.Revision()) }
func (r *replica) next() int64     { return r.revision() + 1 }

// discard closes the replica and removes its file.
func (r *replica) discard() {
	r.store.Close()
	r.engine.Close()
	os.Remove(r.path)
}

// replay applies the changes of one revision. ttl asks the source about a lease.
func (r *replica) replay(group []*event, ttl func(id int64) int64) error {
	if rev := group[0].Kv.ModRevision; rev != r.next() {
		return fmt.Errorf("revision %d follows on %d: the source's history has a gap", rev, r.revision())
	}
	for _, e := range group {
		if e.Kv.Lease != 0 {
			if _, ok := r.store.Lease(api.LeaseID(e.Kv.Lease)); !ok {
				r.grant(e.Kv.Lease, ttl(e.Kv.Lease))
			}
		}
	}
	tx := r.store.Begin()
	var failed error
	for _, e := range group {
		if failed = apply(tx, e); failed != nil {
			break
		}
	}
	tx.End()
	r.expose()
	return failed
}

// apply makes one change and compares what came of it.
func apply(tx *mvcc.WriteTxn, e *event) error {
	kv := e.Kv
	if e.Type == mvccpb.Event_DELETE {
		if n := tx.DeleteRange(kv.Key, nil, nil); n != 1 {
			return fmt.Errorf("revision %d deletes key %q, which the copy does not have", kv.ModRevision, kv.Key)
		}
		return nil
	}
	tx.Put(kv.Key, kv.Value, api.LeaseID(kv.Lease))
	it, _ := tx.Get(kv.Key)
	if int64(it.Create) != kv.CreateRevision || it.Version != kv.Version {
		return fmt.Errorf("key %q at revision %d: created at %d, version %d in the copy, at %d, version %d in the source",
			kv.Key, kv.ModRevision, it.Create, it.Version, kv.CreateRevision, kv.Version)
	}
	return nil
}

// expose makes what was applied readable.
func (r *replica) expose() {
	r.store.Seal(1, 1)
	r.store.Publish()
}

// grant makes a lease that a key needs; one that is gone at the source already
// goes with its keys, or at the end.
func (r *replica) grant(id, ttl int64) {
	tx := r.store.Begin()
	_ = tx.LeaseGrant(api.LeaseID(id), max(ttl, 1)) // it does not exist
	tx.End()
	r.expose()
}

// setLeases leaves exactly these leases, by their TTL.
func (r *replica) setLeases(live map[int64]int64) error {
	for _, id := range r.store.Leases() {
		l, _ := r.store.Lease(id)
		ttl, ok := live[int64(id)]
		if ok && ttl == l.TTL {
			delete(live, int64(id))
			continue
		}
		if keys := l.Keys(); len(keys) > 0 {
			if !ok {
				return fmt.Errorf("lease %x is gone at the source, but key %q is still attached to it", int64(id), keys[0])
			}
			return fmt.Errorf("lease %x has a TTL of %d s in the copy and %d s at the source, and key %q is attached to it", int64(id), l.TTL, ttl, keys[0])
		}
		tx := r.store.Begin()
		err := tx.LeaseRevoke(id)
		tx.End()
		if err != nil {
			return err
		}
	}
	for id, ttl := range live {
		r.grant(id, ttl)
	}
	r.expose()
	return nil
}

// save writes the replica as a snapshot file with its digest.
func (r *replica) save(file string, bar *progress) (int64, error) {
	defer bar.done()
	snap, err := r.store.Snapshot()
	if err != nil {
		return 0, err
	}
	defer snap.Release()
	part := file + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	sum, total := sha256.New(), snap.Size()
	n, err := snap.WriteTo(io.MultiWriter(f, sum, counting(func(n int64) { bar.at(n, total) })))
	if err == nil {
		_, err = f.Write(sum.Sum(nil))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, errors.Join(err, os.Remove(part))
	}
	if err := os.Rename(part, file); err != nil {
		return 0, err
	}
	return n + sha256.Size, syncDir(filepath.Dir(file))
}

// counting tells how many bytes were written so far.
func counting(tell func(n int64)) io.Writer { return &counter{tell: tell} }

type counter struct {
	n    int64
	tell func(int64)
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	c.tell(c.n)
	return len(p), nil
}

// comparison holds the replica's keys against others that come in order.
type comparison struct {
	store *mvcc.Store
	rev   api.Revision
	keys  int64
	sum   hash.Hash
}

func (r *replica) compare(rev int64) *comparison {
	return &comparison{store: r.store, rev: api.Revision(rev), sum: sha256.New()}
}

// next takes the next key of the source.
func (c *comparison) next(kv *mvccpb.KeyValue) error {
	t, err := c.store.Read(c.rev)
	if err != nil {
		return err
	}
	defer t.Release()
	it, ok := t.Get(kv.Key)
	if !ok {
		return fmt.Errorf("key %q is not in the copy", kv.Key)
	}
	rec, err := t.Record(it)
	if err != nil {
		return err
	}
	ours := &mvccpb.KeyValue{}
	if err := proto.Unmarshal(rec, ours); err != nil {
		return err
	}
	kv.ProtoReflect().SetUnknown(nil) // a source of ours shows its checksums
	if !proto.Equal(ours, kv) {
		return fmt.Errorf("key %q differs: %v in the copy, %v at the source", kv.Key, ours, kv)
	}
	c.keys++
	for _, b := range [][]byte{kv.Key, kv.Value} {
		c.sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		c.sum.Write(b)
	}
	for _, n := range []int64{kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease} {
		c.sum.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	}
	return nil
}

// end refuses keys that the source did not have.
func (c *comparison) end() error {
	t, err := c.store.Read(c.rev)
	if err != nil {
		return err
	}
	defer t.Release()
	if n := int64(t.Count([]byte{0}, []byte{0})); n != c.keys {
		return fmt.Errorf("the copy has %d keys, the source %d", n, c.keys)
	}
	return nil
}
