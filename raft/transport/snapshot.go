package transport

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
)

// A snapshot travels as parts, each one gRPC message of a stream of its own:
//
//	kind    1 byte   manifest, then chunks, then the end
//	crc     4 bytes  CRC-32C of all the rest, kind included
//	offset  8 bytes  of the data in the file; in the end part, the file's size
//	data             a manifest in msgpack, file bytes, or the digest
//
// Numbers are big-endian. The digest is SHA-256 over the manifest and the file.
// Chunks come in order and without gaps; one that is larger than chunkBytes says that
// nobody writes, so that the receiver need not spare the disk. So a part that was damaged, lost,
// repeated or taken from another snapshot is refused at once, and whatever the
// part checks cannot see is refused by the digest.
type partKind byte

const (
	partManifest partKind = 1
	partChunk    partKind = 2
	partEnd      partKind = 3

	partHeader = 1 + 4 + 8
)

const (
	// chunkBytes is the data of one chunk as sent while others write, hurriedBytes
	// while nobody does.
	chunkBytes   = 256 << 10
	hurriedBytes = 512 << 10
	// maxPart bounds a part as received.
	maxPart = 1 << 20
	// maxManifest bounds what msgpack is given to decode.
	maxManifest = 256 << 10
	// manifestVersion is raised when an older member must refuse the stream.
	manifestVersion = 1
)

// manifest opens a snapshot stream. Its field names are its wire format.
type manifest struct {
	Version   uint8
	Cluster   uint64
	From, To  uint64
	Index     uint64
	Term      uint64
	Size      int64
	ConfState []byte // raftpb.ConfState
	Envelope  []byte // the MsgSnap, a raftpb.Message
}

func newManifest(id identity, msg *raftpb.Message, s Snapshot) (*manifest, error) {
	meta := s.Meta()
	m := &manifest{
		Version: manifestVersion, Cluster: uint64(id.cluster), From: uint64(id.from), To: uint64(id.to),
		Index: uint64(meta.Index), Term: uint64(meta.Term), Size: s.Size(),
	}
	var err error
	if m.ConfState, err = proto.Marshal(meta.ConfState); err != nil {
		return nil, err
	}
	if m.Envelope, err = proto.Marshal(msg); err != nil {
		return nil, err
	}
	// The sender holds itself to what the receiver will check.
	_, _, err = m.check(id)
	return m, err
}

// check says whether the manifest is one that id.to can take from id.from.
func (m *manifest) check(id identity) (*raftpb.Message, SnapshotMeta, error) {
	fail := func(format string, args ...any) (*raftpb.Message, SnapshotMeta, error) {
		return nil, SnapshotMeta{}, fmt.Errorf("%w: snapshot manifest: "+format, append([]any{errMalformed}, args...)...)
	}
	got := identity{api.ClusterID(m.Cluster), api.MemberID(m.From), api.MemberID(m.To)}
	switch {
	case m.Version != manifestVersion:
		return fail("version %d", m.Version)
	case got != id:
		return fail("%s to %s of cluster %s", got.from, got.to, got.cluster)
	case m.Size < 0:
		return fail("size %d", m.Size)
	case m.Index == 0 || m.Term == 0:
		return fail("index %d of term %d", m.Index, m.Term)
	}
	conf, msg := &raftpb.ConfState{}, &raftpb.Message{}
	if err := proto.Unmarshal(m.ConfState, conf); err != nil {
		return fail("membership: %w", err)
	}
	if err := proto.Unmarshal(m.Envelope, msg); err != nil {
		return fail("envelope: %w", err)
	}
	meta := msg.GetSnapshot().GetMetadata()
	switch {
	case msg.GetType() != raftpb.MsgSnap:
		return fail("an envelope of type %s", msg.GetType())
	case msg.GetFrom() != m.From || msg.GetTo() != m.To:
		return fail("an envelope from %x to %x", msg.GetFrom(), msg.GetTo())
	case meta.GetIndex() != m.Index || meta.GetTerm() != m.Term:
		return fail("the envelope says index %d of term %d, the state is of %d, %d", meta.GetIndex(), meta.GetTerm(), m.Index, m.Term)
	}
	return msg, SnapshotMeta{Index: api.Index(m.Index), Term: api.Term(m.Term), ConfState: conf}, nil
}

func (m *manifest) encode() ([]byte, error) {
	var b []byte
	err := codec.NewEncoderBytes(&b, &codec.MsgpackHandle{}).Encode(m)
	if err == nil && len(b) > maxManifest {
		err = fmt.Errorf("a snapshot manifest of %d bytes: %w", len(b), ErrTooLarge)
	}
	return b, err
}

func decodeManifest(b []byte) (*manifest, error) {
	if len(b) > maxManifest {
		return nil, fmt.Errorf("%w: a snapshot manifest of %d bytes", errMalformed, len(b))
	}
	handle := &codec.MsgpackHandle{}
	handle.MaxDepth = 4
	m := &manifest{}
	if err := codec.NewDecoderBytes(b, handle).Decode(m); err != nil {
		return nil, fmt.Errorf("%w: snapshot manifest: %w", errMalformed, err)
	}
	return m, nil
}

// part is one decoded part; data aliases the received bytes.
type part struct {
	kind   partKind
	offset uint64
	data   []byte
}

// sealPart fills in the header of a part whose data is in b[partHeader:].
func sealPart(b []byte, kind partKind, offset uint64) {
	binary.BigEndian.PutUint64(b[5:], offset)
	b[0] = byte(kind)
	binary.BigEndian.PutUint32(b[1:], partSum(b))
}

func partSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:1], castagnoli), castagnoli, b[5:])
}

func decodePart(b []byte) (part, error) {
	if len(b) < partHeader || len(b) > maxPart {
		return part{}, fmt.Errorf("%w: a snapshot part of %d bytes", errMalformed, len(b))
	}
	if want := binary.BigEndian.Uint32(b[1:]); partSum(b) != want {
		return part{}, fmt.Errorf("%w: a snapshot part's checksum does not match", errMalformed)
	}
	return part{kind: partKind(b[0]), offset: binary.BigEndian.Uint64(b[5:]), data: b[partHeader:]}, nil
}

// writeSnapshot sends all parts of s, in chunks of the size that is asked for. It owns
// no part after send has returned.
func writeSnapshot(m *manifest, s Snapshot, size func() int, send func(mem.Buffer) error) error {
	body, err := m.encode()
	if err != nil {
		return err
	}
	w := &partWriter{send: send, size: size, digest: sha256.New()}
	w.digest.Write(body)
	if err := w.sendPart(partManifest, 0, body); err != nil {
		return err
	}
	if _, err := s.WriteTo(w); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	if w.sent != m.Size {
		return fmt.Errorf("the snapshot said it had %d bytes and wrote %d", m.Size, w.sent)
	}
	return w.sendPart(partEnd, uint64(w.sent), w.digest.Sum(nil))
}

// partWriter cuts what is written to it into chunks.
type partWriter struct {
	send   func(mem.Buffer) error
	size   func() int // of the next chunk
	digest hash.Hash
	sent   int64   // bytes in parts that were sent
	chunk  *[]byte // the part being filled, from the pool; nil if there is none
	filled int     // bytes of data in it
	full   int     // how many it is to have
}

var _ io.Writer = (*partWriter)(nil)

func (w *partWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if w.chunk == nil {
			w.full = w.size()
			w.chunk = mem.DefaultBufferPool().Get(partHeader + w.full)
		}
		n := copy((*w.chunk)[partHeader+w.filled:], p[done:])
		w.filled += n
		done += n
		if w.filled == w.full {
			if err := w.flush(); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

func (w *partWriter) flush() error {
	if w.filled == 0 {
		return nil
	}
	*w.chunk = (*w.chunk)[:partHeader+w.filled]
	b := *w.chunk
	w.digest.Write(b[partHeader:])
	sealPart(b, partChunk, uint64(w.sent))
	buf := mem.NewBuffer(w.chunk, mem.DefaultBufferPool())
	w.sent += int64(w.filled)
	w.chunk, w.filled = nil, 0
	return w.send(buf)
}

func (w *partWriter) sendPart(kind partKind, offset uint64, data []byte) error {
	b := make([]byte, partHeader+len(data))
	copy(b[partHeader:], data)
	sealPart(b, kind, offset)
	return w.send(mem.SliceBuffer(b))
}
