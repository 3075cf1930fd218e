package mvcc

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/api"
)

// TestRecordIsKeyValue decodes our records with etcd's own messages.
func TestRecordIsKeyValue(t *testing.T) {
	for _, kv := range []*mvccpb.KeyValue{
		{Key: []byte("k"), CreateRevision: 1, ModRevision: 2, Version: 3},
		{Key: []byte("k"), CreateRevision: 1, ModRevision: 1, Version: 1, Value: []byte("v"), Lease: 1 << 60},
		{Key: bytes.Repeat([]byte("k"), 300), CreateRevision: 1 << 40, ModRevision: 1 << 50, Version: 1 << 33, Value: make([]byte, 70_000), Lease: -1},
	} {
		it := item{
			key: string(kv.Key), mod: api.Revision(kv.ModRevision), create: api.Revision(kv.CreateRevision),
			version: kv.Version, lease: api.LeaseID(kv.Lease), sub: 5,
		}
		stored := appendRecord([]byte("before"), &it, kv.Value)[6:]
		if len(stored) != recordSize(&it, kv.Value) {
			t.Errorf("%d bytes, announced %d", len(stored), recordSize(&it, kv.Value))
		}
		got := &mvccpb.KeyValue{}
		if err := proto.Unmarshal(stored, got); err != nil { // with the trailer, as etcd does
			t.Fatal(err)
		}
		got.ProtoReflect().SetUnknown(nil)
		if !proto.Equal(got, kv) {
			t.Errorf("got %v, want %v", got, kv)
		}
		rec, err := verify(it.rev().appendTo(nil), stored, 0)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := proto.Marshal(kv); err != nil || !bytes.Equal(rec, want) {
			t.Errorf("record %x, etcd writes %x", rec, want)
		}
		back, err := decodeItem(it.rev(), it.rev().appendTo(nil), stored, 0)
		if err != nil || *back != it {
			t.Errorf("item %+v, want %+v: %v", back, it, err)
		}
	}
	// leasepb.Lease: ID = 1, TTL = 2, RemainingTTL = 3, all int64.
	if b := encodeLease(9, 60, 7); !bytes.Equal(b, []byte{1 << 3, 9, 2 << 3, 60, 3 << 3, 7}) {
		t.Errorf("lease is stored as %x", b)
	}
}

// FuzzRecord takes any bytes for a stored record: never a panic, and what is
// accepted as ours was written by us.
func FuzzRecord(f *testing.F) {
	it := &item{key: "key", mod: 3, create: 2, version: 2}
	f.Add(it.rev().appendTo(nil), appendRecord(nil, it, []byte("value")))
	f.Add(revision{main: 4, sub: 1, tomb: true}.appendTo(nil), []byte{10, 1, 'k'})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		rev, err := parseRevision(key)
		if err != nil {
			return
		}
		if !bytes.Equal(rev.appendTo(nil), key) {
			t.Fatalf("key %x reads as %v", key, rev)
		}
		got, err := decodeItem(rev, key, value, 1<<62)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		rec, err := verify(key, value, 1<<62)
		if err != nil {
			t.Fatal(err)
		}
		rec, _, err = withModRevision(rec, rev)
		kv := &mvccpb.KeyValue{}
		if uerr := proto.Unmarshal(rec, kv); err != nil || uerr != nil {
			t.Fatalf("accepted %x, but %v, %v", value, err, uerr)
		}
		if string(kv.Key) != got.key || kv.ModRevision != int64(rev.main) && !rev.tomb {
			t.Fatalf("item %+v of %v", got, kv)
		}
	})
}

// FuzzLease takes any bytes for a stored lease.
func FuzzLease(f *testing.F) {
	f.Add(leaseKey(7), encodeLease(7, 60, 3))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		id, ttl, remaining, err := decodeLease(key, value)
		if err != nil {
			return
		}
		if again, t2, r2, err := decodeLease(leaseKey(id), encodeLease(id, ttl, remaining)); err != nil || again != id || t2 != ttl || r2 != remaining {
			t.Fatalf("%x: %d %d %d, again %d %d %d, %v", value, id, ttl, remaining, again, t2, r2, err)
		}
	})
}
