package transport

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"path/filepath"
	"strings"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

const (
	// incomingPrefix names files of snapshots under way. After a crash such a
	// file is worth nothing, whole or not: nobody was told of it.
	incomingPrefix = "incoming-"
	// syncEvery spreads the sync of a snapshot, so that the log's own syncs on
	// the same disk wait for little. The receiver rests after as much (transfer.go).
	syncEvery = chunkBytes
	// syncHurried takes its place while nobody writes.
	syncHurried = 16 << 20
	// spareBytes stays free beside a received snapshot, for the log to go on.
	spareBytes = 64 << 20
)

// snapshotDir is where received snapshots are put together.
type snapshotDir struct {
	fs    vfs.FS
	dir   string
	files atomic.Uint64
}

// openSnapshotDir removes what a crash left behind.
func openSnapshotDir(fs vfs.FS, dir string) (*snapshotDir, error) {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name, incomingPrefix) && !e.IsDir {
			if err := fs.Remove(filepath.Join(dir, e.Name)); err != nil {
				return nil, err
			}
		}
	}
	return &snapshotDir{fs: fs, dir: dir}, nil
}

// receiver puts one snapshot together. It is owned by one goroutine.
//
// Invariants: bytes [0, at) of the file are chunks whose checksums held, and
// digest covers the manifest and exactly them. The file exists iff file is set.
type receiver struct {
	in     *snapshotDir
	id     identity // from the handshake
	file   vfs.File
	path   string
	size   int64
	at     int64
	synced int64
	// hurried says that the chunk before came in a hurry: it was a large one. The last
	// of a snapshot may not look like it.
	hurried bool
	digest  hash.Hash
	msg     *raftpb.Message
	meta    SnapshotMeta
}

func (d *snapshotDir) receive(id identity) *receiver {
	return &receiver{in: d, id: id, digest: sha256.New()}
}

// take handles one part. done means that the file is complete, verified and
// durable under path; the receiver has let go of it.
func (r *receiver) take(b []byte) (done bool, err error) {
	p, err := decodePart(b)
	if err != nil {
		return false, err
	}
	switch {
	case p.kind == partManifest && r.file == nil:
		return false, r.begin(p.data)
	case p.kind == partChunk && r.file != nil:
		return false, r.chunk(p)
	case p.kind == partEnd && r.file != nil:
		return true, r.end(p)
	}
	return false, fmt.Errorf("%w: a snapshot part of kind %d out of turn", errMalformed, p.kind)
}

func (r *receiver) begin(body []byte) error {
	m, err := decodeManifest(body)
	if err != nil {
		return err
	}
	if r.msg, r.meta, err = m.check(r.id); err != nil {
		return err
	}
	free, err := r.in.fs.Free(r.in.dir)
	if err != nil {
		return err
	}
	if uint64(m.Size)+spareBytes > free {
		return fmt.Errorf("a snapshot of %d bytes, %d are free: %w", m.Size, free, vfs.ErrNoSpace)
	}
	r.path = filepath.Join(r.in.dir, fmt.Sprintf("%s%016x-%016x-%s-%d", incomingPrefix, m.Term, m.Index, r.id.from, r.in.files.Add(1)))
	file, err := r.in.fs.Create(r.path)
	if err != nil {
		return err
	}
	r.file, r.size = file, m.Size
	r.digest.Write(body)
	if m.Size == 0 {
		return nil // an empty reservation is an error to some systems
	}
	return file.Preallocate(m.Size)
}

func (r *receiver) chunk(p part) error {
	if p.offset != uint64(r.at) || int64(len(p.data)) > r.size-r.at {
		return fmt.Errorf("%w: a snapshot chunk of %d bytes at %d, after %d of %d", errMalformed, len(p.data), p.offset, r.at, r.size)
	}
	if _, err := r.file.WriteAt(p.data, r.at); err != nil {
		return err
	}
	r.digest.Write(p.data)
	r.at += int64(len(p.data))
	every := int64(syncEvery)
	if r.hurried = len(p.data) > chunkBytes; r.hurried {
		every = syncHurried
	}
	if r.at-r.synced < every {
		return nil
	}
	r.synced = r.at
	return r.file.Sync()
}

// end verifies the whole and makes it durable. The file counts only once the
// handler has it, so a crash anywhere in here leaves garbage, never a state.
func (r *receiver) end(p part) error {
	if p.offset != uint64(r.size) || r.at != r.size {
		return fmt.Errorf("%w: a snapshot of %d bytes ended at %d", errMalformed, r.size, r.at)
	}
	if !bytes.Equal(p.data, r.digest.Sum(nil)) {
		return fmt.Errorf("%w: the snapshot's digest does not match", errMalformed)
	}
	if err := r.file.Sync(); err != nil {
		return err
	}
	if err := r.file.Close(); err != nil {
		return err
	}
	if err := r.in.fs.SyncDir(r.in.dir); err != nil {
		return err
	}
	r.file = nil
	return nil
}

// abort removes what there is. It is called after any error.
func (r *receiver) abort() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return errors.Join(err, r.in.fs.Remove(r.path))
}

// describe is for log lines.
func (r *receiver) describe() (api.Index, api.Term, int64) {
	return r.meta.Index, r.meta.Term, r.size
}
