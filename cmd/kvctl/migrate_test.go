package main

import (
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// TestComparison changes each field of a key in turn: none may pass for equal.
func TestComparison(t *testing.T) {
	file, _ := saved(t)
	r, err := openReplica(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.discard()
	good := &mvccpb.KeyValue{Key: []byte("k09"), CreateRevision: 11, ModRevision: 31, Version: 3, Value: []byte("value 29")}
	if err := r.compare(32).next(proto.Clone(good).(*mvccpb.KeyValue)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(kv *mvccpb.KeyValue){
		"key":    func(kv *mvccpb.KeyValue) { kv.Key = []byte("absent") },
		"value":  func(kv *mvccpb.KeyValue) { kv.Value = []byte("value 28") },
		"create": func(kv *mvccpb.KeyValue) { kv.CreateRevision++ },
		"mod":    func(kv *mvccpb.KeyValue) { kv.ModRevision++ },
		"ver":    func(kv *mvccpb.KeyValue) { kv.Version++ },
		"lease":  func(kv *mvccpb.KeyValue) { kv.Lease = 7 },
	} {
		bad := proto.Clone(good).(*mvccpb.KeyValue)
		change(bad)
		if err := r.compare(32).next(bad); err == nil {
			t.Errorf("a different %s passes for equal", name)
		}
	}
	c := r.compare(32)
	if err := c.next(proto.Clone(good).(*mvccpb.KeyValue)); err != nil {
		t.Fatal(err)
	}
	if c.end() == nil {
		t.Error("one key of nine passes for all")
	}
}
