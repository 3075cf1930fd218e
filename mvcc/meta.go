package mvcc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// The keys of bucket meta that the store itself writes, with etcd's encodings;
// the last is ours.
var (
	metaIndex     = []byte("consistent_index")    // 8 bytes, big-endian
	metaTerm      = []byte("term")                // 8 bytes, big-endian
	metaScheduled = []byte("scheduledCompactRev") // a revision's key
	metaFinished  = []byte("finishedCompactRev")  // a revision's key
	// metaTrusted holds, each in 8 big-endian bytes, the revision from which on
	// every record has a checksum and the consistent_index written with it,
	// then a CRC-32C of both. If consistent_index says otherwise, another
	// program has written to the file since, or the file is damaged.
	metaTrusted = []byte("keelson_checksums")
)

// metaStorageVersion is the schema's version, which the server writes.
var metaStorageVersion = []byte("storageVersion")

// position is what bucket meta says.
type position struct {
	index     api.Index
	term      api.Term
	scheduled api.Revision // -1 when absent
	finished  api.Revision // -1 when absent
	trusted   api.Revision
	foreign   bool // the file was made by another program
}

func (p position) compact() api.Revision { return max(p.scheduled, p.finished) }

func readPosition(v engine.View) (position, error) {
	p := position{scheduled: -1, finished: -1}
	for _, f := range []struct {
		key []byte
		set func(uint64)
	}{
		{metaIndex, func(n uint64) { p.index = api.Index(n) }},
		{metaTerm, func(n uint64) { p.term = api.Term(n) }},
	} {
		if b := v.Get(engine.Meta, f.key); b != nil {
			if len(b) != 8 {
				return p, fmt.Errorf("%w: %s: %x", ErrCorrupt, f.key, b)
			}
			f.set(binary.BigEndian.Uint64(b))
		}
	}
	for _, f := range []struct {
		key []byte
		rev *api.Revision
	}{{metaScheduled, &p.scheduled}, {metaFinished, &p.finished}} {
		if b := v.Get(engine.Meta, f.key); b != nil {
			if len(b) != revisionKeyLen {
				return p, fmt.Errorf("%w: %s: %x", ErrCorrupt, f.key, b)
			}
			*f.rev = api.Revision(binary.BigEndian.Uint64(b))
		}
	}
	b := v.Get(engine.Meta, metaTrusted)
	if b == nil {
		p.foreign = true
		return p, nil
	}
	if len(b) != 20 || binary.BigEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli) {
		return p, fmt.Errorf("%w: %s: %x", ErrCorrupt, metaTrusted, b)
	}
	if at := binary.BigEndian.Uint64(b[8:]); at != uint64(p.index) {
		return p, fmt.Errorf("%w: consistent_index is %d, but %d was written: the file is damaged or another program wrote to it",
			ErrCorrupt, p.index, at)
	}
	p.trusted = api.Revision(binary.BigEndian.Uint64(b))
	return p, nil
}

// putPosition adds to a batch where its state stands in the log.
func putPosition(t *engine.Batch, index api.Index, term api.Term, trusted api.Revision) {
	b := make([]byte, 0, 44)
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	b = binary.BigEndian.AppendUint64(b, uint64(term))
	b = binary.BigEndian.AppendUint64(b, uint64(trusted))
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[16:32], castagnoli))
	t.Put(engine.Meta, metaIndex, b[0:8])
	t.Put(engine.Meta, metaTerm, b[8:16])
	t.Put(engine.Meta, metaTrusted, b[16:36])
}

func putRevision(t *engine.Batch, key []byte, rev api.Revision) {
	t.Put(engine.Meta, key, revision{main: rev}.appendTo(make([]byte, 0, revisionKeyLen)))
}
