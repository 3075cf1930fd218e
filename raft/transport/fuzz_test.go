package transport

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/raft/vfs"
)

// FuzzMessage: what the hand-written decoder takes, the generated one takes too,
// and both see the same message.
func FuzzMessage(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		f.Add(appendMessageTo(nil, randomMessage(rng)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		want := &raftpb.Message{}
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, want); err != nil {
			t.Fatalf("protobuf refuses it: %v", err)
		}
		if !proto.Equal(m, want) {
			t.Fatalf("got %v, want %v", m, want)
		}
		again, err := decodeMessage(appendMessageTo(nil, m))
		if err != nil || !proto.Equal(again, m) || messageSize(m) != len(appendMessageTo(nil, m)) {
			t.Fatalf("%v came back as %v, %v", m, again, err)
		}
	})
}

// FuzzFrame: no bytes crash the decoder, and a frame that it takes can be made
// again from its records.
func FuzzFrame(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		records := []record{messageRecord(randomMessage(rng)), forwardRecord(7, []byte("batch")), messageRecord(randomMessage(rng))}
		_, size := nextFrame(records, frameTarget)
		f.Add(bytes.Clone(encodeFrame(records, size).ReadOnlyData()[sealSize:]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var records []record
		err := decodeFrame(b, func(r record) error {
			if r.msg != nil {
				_ = checkMessage(r.msg, testIdentity)
				r = messageRecord(r.msg)
			} else {
				r = forwardRecord(r.term, r.batch)
			}
			records = append(records, r)
			return nil
		})
		if err != nil || len(records) == 0 {
			return
		}
		n, size := nextFrame(records, 1<<30)
		back := 0
		err = decodeFrame(encodeFrame(records, size).ReadOnlyData()[sealSize:], func(record) error { back++; return nil })
		if err != nil || n != len(records) || back != n {
			t.Fatalf("%d of %d records came back, %v", back, len(records), err)
		}
	})
}

// FuzzManifest: no bytes crash the decoder, and one that passes is for us.
func FuzzManifest(f *testing.F) {
	m, err := newManifest(testIdentity, envelope(1, 2), newTestSnapshot(10))
	if err != nil {
		f.Fatal(err)
	}
	body, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0x91}, 2000))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			return
		}
		msg, meta, err := m.check(testIdentity)
		if err == nil && (msg.GetTo() != 2 || msg.GetFrom() != 1 || meta.Index == 0 || m.Size < 0) {
			t.Fatalf("accepted %+v", m)
		}
	})
}

// FuzzPart: no sequence of parts crashes the receiver or leaves a file behind
// unless the whole digest held.
func FuzzPart(f *testing.F) {
	all := parts(f, newTestSnapshot(40))
	for _, b := range all {
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		fs := vfs.NewMem(1)
		d, err := openSnapshotDir(fs, "/snap")
		if err != nil {
			t.Fatal(err)
		}
		if seal && len(b) >= partHeader { // get past the checksum
			b = bytes.Clone(b)
			p := part{kind: partKind(b[0])}
			sealPart(b, p.kind, 0)
		}
		for at := range all {
			r := d.receive(testIdentity)
			done, err := false, error(nil)
			for i := 0; i <= at && !done && err == nil; i++ {
				if i == at {
					done, err = r.take(b)
				} else {
					done, err = r.take(all[i])
				}
			}
			if done && err == nil {
				if !bytes.Equal(fileContent(t, fs, r.path), newTestSnapshot(40).data) {
					t.Fatal("another file than was sent")
				}
				continue
			}
			if err := r.abort(); err != nil && r.path != "" {
				t.Fatal(err)
			}
		}
	})
}

// FuzzHandshake: no metadata crashes the parser.
func FuzzHandshake(f *testing.F) {
	f.Add(protocolVersion, "9", "1", "2")
	f.Add(protocolVersion, "ffffffffffffffffff", "-1", "")
	f.Fuzz(func(t *testing.T, protocol, cluster, from, to string) {
		md := metadata.Pairs(keyProtocol, protocol, keyCluster, cluster, keyFrom, from, keyTo, to)
		id, err := parseIdentity(md)
		if err != nil {
			return
		}
		if again, err := parseIdentity(id.metadata()); err != nil || again != id {
			t.Fatalf("%v came back as %v, %v", id, again, err)
		}
	})
}

// FuzzAnswer: no answer of a peer crashes the caller.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{answerOK, 'x'})
	f.Add([]byte{answerError, 0, 0, 0, 14, 'x'})
	f.Add([]byte{answerError, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if body, err := decodeAnswer(b); err == nil && (b[0] != answerOK || !bytes.Equal(body, b[1:])) {
			t.Fatalf("%x gave %x", b, body)
		}
	})
}
