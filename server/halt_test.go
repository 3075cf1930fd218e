package server

import (
	"context"
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// TestDamagedRecordStopsTheMember: a transaction that must read a record that
// is damaged cannot be applied here. The member stops, and neither this
// transaction nor a later one leaves a trace.
func TestDamagedRecordStopsTheMember(t *testing.T) {
	s := newSolo(t)
	s.Server.parts.fatal = make(chan error, 1)
	s.put(t, "good", 0)
	s.put(t, "bad", 0)
	damage(t, s)
	done := make(chan error, 1)
	go func() {
		_, err := s.kv.Txn(callContext(t), &pb.TxnRequest{Success: ops(
			putOp("other"),
			&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("bad"), PrevKv: true}}},
		)})
		done <- err
	}()
	err := <-s.Server.parts.fatal
	if !errors.Is(err, mvcc.ErrCorrupt) {
		t.Errorf("the member stops for %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("answered while clients are served: %v", err)
	default:
	}
	if s.store.Revision() != 4 {
		t.Errorf("the store shows revision %d", s.store.Revision())
	}
	close(s.unserved)
	if err := <-done; err == nil {
		t.Error("the transaction was acknowledged")
	}
	if _, err := s.log.Propose(context.Background(), commandPut, "", []byte("\x0a\x01k")); err != error(api.ErrStopped) {
		t.Errorf("a later command: %v", err)
	}
	if s.store.Revision() != 4 {
		t.Errorf("a later command made revision %d", s.store.Revision())
	}
	s.damaged = true
}

// damage changes one byte of the value of key "bad" in the engine.
func damage(t *testing.T, s *solo) {
	t.Helper()
	if err := s.store.Flush(); err != nil {
		t.Fatal(err)
	}
	view, err := s.engine.View()
	if err != nil {
		t.Fatal(err)
	}
	var key, value []byte
	view.Scan(engine.Key, nil, nil, func(k, v []byte) bool {
		key, value = append([]byte(nil), k...), append([]byte(nil), v...)
		return true
	})
	view.Release()
	value[len(value)/2] ^= 1
	batch := &engine.Batch{}
	batch.Put(engine.Key, key, value)
	if err := s.engine.Commit(batch); err != nil {
		t.Fatal(err)
	}
	s.put(t, "good", 0)
	if err := s.store.Flush(); err != nil { // the store looks at the engine anew
		t.Fatal(err)
	}
}
