package transport

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
)

// randomMessage draws a message with any subset of its fields.
func randomMessage(rng *rand.Rand) *raftpb.Message {
	number := func() *uint64 {
		switch rng.IntN(4) {
		case 0:
			return nil
		case 1:
			return proto.Uint64(0)
		case 2:
			return proto.Uint64(math.MaxUint64)
		}
		return proto.Uint64(rng.Uint64() >> rng.IntN(64))
	}
	data := func() []byte {
		if rng.IntN(4) == 0 {
			return nil
		}
		return bytes.Repeat([]byte{byte(rng.Uint32())}, rng.IntN(200))
	}
	types := []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp, raftpb.MsgTransferLeader, raftpb.MsgTimeoutNow}
	m := &raftpb.Message{
		Type: types[rng.IntN(len(types))].Enum(), To: number(), From: number(), Term: number(), LogTerm: number(), Index: number(),
		Commit: number(), Vote: number(), RejectHint: number(), Context: data(),
	}
	if rng.IntN(2) == 0 {
		m.Reject = proto.Bool(rng.IntN(2) == 0)
	}
	for range rng.IntN(4) {
		e := &raftpb.Entry{Term: number(), Index: number(), Data: data()}
		if rng.IntN(2) == 0 {
			e.Type = raftpb.EntryType(rng.IntN(3)).Enum()
		}
		m.Entries = append(m.Entries, e)
	}
	return m
}

// The hand-written codec and the generated one agree byte for byte.
func TestMessageCodecAgreesWithProtobuf(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		m := randomMessage(rng)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got := appendMessageTo(nil, m)
		if !bytes.Equal(got, want) || messageSize(m) != len(want) {
			t.Fatalf("%v:\n%x, sized %d\n%x", m, got, messageSize(m), want)
		}
		back, err := decodeMessage(got)
		if err != nil || !proto.Equal(back, m) {
			t.Fatalf("%v came back as %v, %v", m, back, err)
		}
	}
}

func TestDecodeMessageRefuses(t *testing.T) {
	local := []raftpb.MessageType{raftpb.MsgHup, raftpb.MsgBeat, raftpb.MsgProp, raftpb.MsgSnap, raftpb.MsgUnreachable, raftpb.MsgSnapStatus,
		raftpb.MsgCheckQuorum, raftpb.MsgStorageAppend, raftpb.MsgStorageApplyResp, raftpb.MsgForgetLeader, 99, -1}
	for _, typ := range local {
		if _, err := decodeMessage(appendMessageTo(nil, &raftpb.Message{Type: typ.Enum()})); !errors.Is(err, errMalformed) {
			t.Fatalf("%s: %v", typ, err)
		}
	}
	inner := &raftpb.Message{Type: raftpb.MsgApp.Enum()}
	for name, m := range map[string]*raftpb.Message{
		"responses": {Type: raftpb.MsgApp.Enum(), Responses: []*raftpb.Message{inner}},
		"snapshot":  {Type: raftpb.MsgApp.Enum(), Snapshot: &raftpb.Snapshot{}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeMessage(b); !errors.Is(err, errMalformed) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	many := bytes.Repeat([]byte{fieldEntries<<3 | byte(protowire.BytesType), 0}, maxEntries+1)
	if _, err := decodeMessage(append(many, fieldType<<3, byte(raftpb.MsgApp))); !errors.Is(err, errMalformed) {
		t.Fatalf("too many entries: %v", err)
	}
}

// A later version may add fields: they are skipped.
func TestDecodeMessageSkipsUnknownFields(t *testing.T) {
	m := appendMessage(1, 2, 5, []byte("data"))
	b := protowire.AppendTag(appendMessageTo(nil, m), 77, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, 1)
	b = protowire.AppendBytes(protowire.AppendTag(b, 78, protowire.BytesType), []byte("new"))
	back, err := decodeMessage(b)
	if err != nil || !proto.Equal(back, m) {
		t.Fatalf("%v, %v", back, err)
	}
}

func TestFrameRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var records []record
		for range 1 + rng.IntN(20) {
			if rng.IntN(3) == 0 {
				records = append(records, forwardRecord(api.Term(rng.Uint64()), bytes.Repeat([]byte("f"), rng.IntN(300))))
			} else {
				records = append(records, messageRecord(randomMessage(rng)))
			}
		}
		n, size := nextFrame(records, frameTarget)
		if n != len(records) {
			t.Fatalf("%d of %d records in a frame of %d bytes", n, len(records), size)
		}
		var back []record
		sealed := encodeFrame(records, size).ReadOnlyData()
		bare, err := unseal(sealed)
		if err != nil {
			t.Fatal(err)
		}
		err = decodeFrame(bare, func(r record) error {
			back = append(back, r)
			return nil
		})
		if err != nil || len(back) != len(records) {
			t.Fatalf("%d records came back of %d, %v", len(back), len(records), err)
		}
		bad := bytes.Clone(sealed)
		bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		if _, err := unseal(bad); !errors.Is(err, errMalformed) {
			t.Fatalf("a frame with a turned bit: %v", err)
		}
		for i, r := range records {
			if r.term != back[i].term || !bytes.Equal(r.batch, back[i].batch) || !proto.Equal(r.msg, back[i].msg) || r.body != back[i].body {
				t.Fatalf("record %d: %v came back as %v", i, r, back[i])
			}
		}
	}
}

func TestFramesAreBounded(t *testing.T) {
	small := make([]record, 2*frameRecords)
	for i := range small {
		small[i] = forwardRecord(1, nil)
	}
	if n, _ := nextFrame(small, frameTarget); n != frameRecords {
		t.Fatalf("%d records in a frame", n)
	}
	large := []record{forwardRecord(1, make([]byte, frameTarget-100)), forwardRecord(1, make([]byte, 200))}
	if n, _ := nextFrame(large, frameTarget); n != 1 {
		t.Fatalf("%d records go beyond the target", n)
	}
	huge := []record{forwardRecord(1, make([]byte, 3*frameTarget))}
	if n, _ := nextFrame(huge, frameTarget); n != 1 {
		t.Fatal("a record beyond the target must travel alone")
	}
	b := bytes.Repeat([]byte{byte(recordForward), 1, 0}, frameRecords+1)
	if err := decodeFrame(b, func(record) error { return nil }); !errors.Is(err, errMalformed) {
		t.Fatalf("a frame of too many records: %v", err)
	}
}

func TestCheckMessage(t *testing.T) {
	id := identity{cluster: 9, from: 1, to: 2}
	good := appendMessage(1, 2, 5, []byte("a"), []byte("b"))
	if err := checkMessage(good, id); err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(m *raftpb.Message){
		"another sender":   func(m *raftpb.Message) { m.From = proto.Uint64(3) },
		"another receiver": func(m *raftpb.Message) { m.To = proto.Uint64(3) },
		"a gap":            func(m *raftpb.Message) { m.Entries[1].Index = proto.Uint64(8) },
		"a repeated index": func(m *raftpb.Message) { m.Entries[1].Index = proto.Uint64(6) },
		"a falling term":   func(m *raftpb.Message) { m.Entries[1].Term = proto.Uint64(0) },
		"a future term":    func(m *raftpb.Message) { m.Entries[1].Term = proto.Uint64(2) },
	}
	for name, change := range cases {
		m := proto.Clone(good).(*raftpb.Message)
		change(m)
		if err := checkMessage(m, id); !errors.Is(err, errMalformed) {
			t.Fatalf("%s: %v", name, err)
		}
	}
}
