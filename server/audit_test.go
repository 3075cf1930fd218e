package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	"github.com/keelson-io/keelson/api"
)

// auditedSolo records everything into memory.
func auditedSolo(t *testing.T, reads int) (s *solo, records func() []map[string]any) {
	t.Helper()
	var out bytes.Buffer
	log, err := NewLogger(&out, slog.LevelInfo, "json")
	if err != nil {
		t.Fatal(err)
	}
	s = newSolo(t, func(c *Config) { c.Audit = Audit{Logger: log, Reads: reads} })
	return s, func() (all []map[string]any) {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		s.audit.run(ended) // writes what waits
		for line := range strings.Lines(out.String()) {
			var r map[string]any
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			delete(r, "ts")
			delete(r, "took")
			delete(r, "remote")
			delete(r, "level")
			all = append(all, r)
		}
		for _, secret := range []string{"secret", "hidden"} {
			if strings.Contains(out.String(), secret) {
				t.Errorf("the audit log holds what nobody must read: %s", out.String())
			}
		}
		return all
	}
}

// TestAuditRecords: who, what, which keys, how it ended; never a value, never a
// password.
func TestAuditRecords(t *testing.T) {
	s, records := auditedSolo(t, 1)
	ctx := callContext(t)
	auth := pb.NewAuthClient(s.conn)
	s.kv.Put(ctx, &pb.PutRequest{Key: []byte("/a"), Value: []byte("secret")})
	s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("/a"), RangeEnd: []byte("/b")})
	s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("\xff\x00")})
	s.kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("/c"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("hidden")}}},
		Success: ops(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("/c"), Value: []byte("secret")}}}),
	})
	s.kv.Put(ctx, &pb.PutRequest{Key: []byte("/a"), Lease: 99})
	s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 60})
	auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "secret"})
	auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "root"})
	auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
	token, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	s.kv.Put(ctx, &pb.PutRequest{Key: []byte("/a")})
	s.kv.Put(withToken(ctx, token.Token), &pb.PutRequest{Key: []byte("/a")})

	keys := func(parts ...string) (out []any) {
		for i := 0; i < len(parts); i += 2 {
			out = append(out, map[string]any{"do": parts[i], "key": parts[i+1]})
		}
		return out
	}
	want := []map[string]any{
		{"method": "/etcdserverpb.KV/Put", "code": "OK", "keys": keys("write", "/a")},
		{"method": "/etcdserverpb.KV/Range", "code": "OK", "keys": []any{map[string]any{"do": "read", "key": "/a", "end": "/b"}}},
		{"method": "/etcdserverpb.KV/DeleteRange", "code": "OK", "keys": keys("write", "0xff00")},
		{"method": "/etcdserverpb.KV/Txn", "code": "OK", "keys": keys("read", "/c", "write", "/c")},
		{"method": "/etcdserverpb.KV/Put", "code": "NotFound", "error": "etcdserver: requested lease not found", "keys": keys("write", "/a")},
		{"method": "/etcdserverpb.Lease/LeaseGrant", "code": "OK", "lease": 7.0, "ttl": 60.0},
		{"method": "/etcdserverpb.Auth/UserAdd", "code": "OK", "name": "root"},
		{"method": "/etcdserverpb.Auth/RoleAdd", "code": "OK", "name": "root"},
		{"method": "/etcdserverpb.Auth/UserGrantRole", "code": "OK", "of-user": "root", "role": "root"},
		{"method": "/etcdserverpb.Auth/AuthEnable", "code": "OK"},
		{"method": "/etcdserverpb.Auth/Authenticate", "code": "OK", "name": "root"},
		{"method": "/etcdserverpb.KV/Put", "code": "InvalidArgument", "error": "etcdserver: user name is empty", "keys": keys("write", "/a")},
		{"method": "/etcdserverpb.KV/Put", "code": "OK", "keys": keys("write", "/a"), "user": "root"},
	}
	got := records()
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) {
			t.Fatalf("%d records, want %d; first beyond: %v", len(got), len(want), fmt.Sprint(got[min(i, len(got)-1)]))
		}
		want[i]["msg"] = "rpc"
		g, _ := json.Marshal(got[i])
		w, _ := json.Marshal(want[i])
		if string(g) != string(w) {
			t.Errorf("record %d:\ngot  %s\nwant %s", i, g, w)
		}
	}
}

// TestAuditSamplesReads: one of so many reads, but every refusal.
func TestAuditSamplesReads(t *testing.T) {
	s, _ := auditedSolo(t, 10)
	n := 0
	for range 100 {
		if s.audit.wants("/etcdserverpb.KV/Range", nil, codes.OK) {
			n++
		}
	}
	if n != 10 {
		t.Errorf("%d of 100 reads are recorded", n)
	}
	s.audit.cfg.Reads = 0
	if s.audit.wants("/etcdserverpb.KV/Range", nil, codes.OK) {
		t.Error("a read is recorded although none is to be")
	}
	if !s.audit.wants("/etcdserverpb.KV/Range", nil, codes.PermissionDenied) || !s.audit.wants("/etcdserverpb.KV/Put", nil, codes.OK) ||
		s.audit.wants("/etcdserverpb.KV/Txn", &txnRequest{}, codes.OK) ||
		s.audit.wants("/etcdserverpb.Maintenance/Alarm", &pb.AlarmRequest{}, codes.OK) ||
		!s.audit.wants("/etcdserverpb.Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE}, codes.OK) {
		t.Error("refusals and writes are always recorded, transactions that only read by sample")
	}
	for method := range onlyReads {
		if _, ok := rpcNeeds[method]; !ok {
			t.Errorf("%s is no RPC of ours", method)
		}
	}
}

// TestAuditIsBounded: a disk that hangs costs records, not requests.
func TestAuditIsBounded(t *testing.T) {
	s, records := auditedSolo(t, 1)
	for range auditQueue + 5 {
		s.audit.record(context.Background(), "/etcdserverpb.KV/Put", nil, api.ErrStopped, time.Second)
	}
	if got := figure(t, s.audit.dropped); got != 5 {
		t.Errorf("%v records were dropped", got)
	}
	if got := len(records()); got != auditQueue {
		t.Errorf("%d records were written", got)
	}
}

func TestKeyText(t *testing.T) {
	long := strings.Repeat("ä", maxKeyText)
	for in, want := range map[string]string{
		"": "", "/a": "/a", "\x00": "\x00", "\xfe": "0xfe", long: long[:maxKeyText] + "…",
	} {
		if got := keyText([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
