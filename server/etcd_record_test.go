package server

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft"
)

// etcd #18667: a transaction that read at a compacted revision wrote on the members
// that had not compacted yet. Here it is refused whole, whatever else is in its
// batch, and members that apply the same log in other portions stay equal.
func TestEtcd18667_CompactedReadInATransaction(t *testing.T) {
	body := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("x")}}},
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k"), Revision: 2}}},
	}}
	script := func() []*raft.Command {
		return []*raft.Command{
			{Kind: commandPut, Body: body(put)}, {Kind: commandPut, Body: body(put)}, {Kind: commandPut, Body: body(put)},
			{Kind: commandCompact, Body: body(&pb.CompactionRequest{Revision: 3})},
			{Kind: commandTxn, Body: body(txn)},
			{Kind: commandPut, Body: body(put)},
		}
	}
	var hashes [2]uint32
	for i, portion := range []int{1, 6} {
		s := newSolo(t)
		all := script()
		for rest := all; len(rest) > 0; rest = rest[portion:] {
			s.log.mu.Lock()
			s.log.applyLocked(rest[:portion]...)
			s.log.mu.Unlock()
		}
		for j, c := range all {
			if refused := j == 4; refused != errors.Is(c.Err, api.ErrCompacted) || !refused && c.Err != nil {
				t.Errorf("portions of %d, command %d: %v", portion, j, c.Err)
			}
		}
		if rev := s.store.Revision(); rev != 5 {
			t.Errorf("portions of %d end at revision %d, want 5", portion, rev)
		}
		hash, _, err := s.store.HashKV(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		hashes[i] = hash.Hash
	}
	if hashes[0] != hashes[1] {
		t.Errorf("members that applied the same log differ: %x, %x", hashes[0], hashes[1])
	}
}
