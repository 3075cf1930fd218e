package auth

import (
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/wire"
)

// TestRights asks every RPC as everybody.
func TestRights(t *testing.T) {
	p := start(t, cluster.Options{})
	p.users()
	// Lease 1 has a key of ann's, lease 2 one that she may not read, 3 none, 4 one
	// that she may write only.
	for id, key := range map[int64]string{1: "a1", 2: "x1", 3: "", 4: "w"} {
		p.must("Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: id, TTL: 10_000})
		if key != "" {
			p.must("KV/Put", &pb.PutRequest{Key: []byte(key), Lease: id})
		}
	}
	asked := map[string]bool{}
	for _, list := range [][]ask{keys(), txns(), watches(), leases(), members(), maintenance(), recipes(), management()} {
		for _, a := range list {
			asked[a.rpc] = true
			for _, user := range []string{"", forger, "idle", "ann", "root"} {
				if user == "root" || !deliberate[a.what] {
					p.same(a, user)
				}
			}
		}
	}
	for _, m := range wire.Methods() {
		if !asked[m.Name] {
			t.Errorf("nobody asks %s", m.Name)
		}
	}
}

// deliberate are requests that kvd refuses otherwise than etcd, to all but root.
//
// URLs that are none etcd finds wrong before it asks who sends them. kvd asks
// first: nobody learns anything before he is known (the default-deny table of
// server/auth_needs.go).
//
// etcd ends an Observe that it refuses as if there were nothing more to see. kvd
// tells why.
var deliberate = map[string]bool{withoutURLs: true, wrongURL: true, observed: true}

const (
	withoutURLs = "without URLs"
	wrongURL    = "with a wrong URL"
	observed    = "a, observed"
)

func get(key, end string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

// ranges are keys and ends of every form, inside, at the edge of and outside what
// ann may do.
var ranges = [][2]string{
	{"a", ""}, {"b", ""}, {"c", ""}, {"a", "b"}, {"a", "c"}, {"a", "c\x00"}, {"`", "b"}, {"a", "\x00"}, {"b", "\x00"},
	{"\x00", "\x00"}, {"", "\x00"}, {"", ""}, {"r", ""}, {"r", "r\x00"}, {"r", "s"}, {"r", "\x00"}, {"w", ""}, {"w", "w\x00"}, {"a", "a"}, {"b", "a"},
}

func keys() (out []ask) {
	for _, r := range ranges {
		what := r[0] + " to " + r[1]
		out = append(out,
			req("KV/Range", what, get(r[0], r[1])),
			req("KV/RangeStream", what, get(r[0], r[1])),
			req("KV/Range", what+", serializable", &pb.RangeRequest{Key: []byte(r[0]), RangeEnd: []byte(r[1]), Serializable: true, CountOnly: true}),
			req("KV/DeleteRange", what, &pb.DeleteRangeRequest{Key: []byte(r[0] + "0"), RangeEnd: []byte(r[1])}),
			req("KV/DeleteRange", what+", prev_kv", &pb.DeleteRangeRequest{Key: []byte(r[0] + "0"), RangeEnd: []byte(r[1]), PrevKv: true}),
		)
	}
	for _, key := range []string{"a", "b", "c", "r", "w", ""} {
		for lease := range int64(6) {
			out = append(out,
				req("KV/Put", key, &pb.PutRequest{Key: []byte(key), Lease: lease}),
				req("KV/Put", key+", prev_kv", &pb.PutRequest{Key: []byte(key), Lease: lease, PrevKv: true}))
		}
		out = append(out, req("KV/Put", key+", ignore", &pb.PutRequest{Key: []byte(key), IgnoreValue: true, IgnoreLease: true}))
	}
	for _, key := range []string{"a", "b", "r", "w"} { // no lease has a key but its first
		out = append(out, req("KV/Put", key+", no lease", &pb.PutRequest{Key: []byte(key)}))
	}
	return append(out,
		req("KV/Compact", "3", &pb.CompactionRequest{Revision: 3}), req("KV/Compact", "future", &pb.CompactionRequest{Revision: 1 << 40}))
}

func opPut(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func opGet(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opDelete(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func opTxn(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

// txns hold one operation each, in either branch, on three levels.
func txns() (out []ask) {
	out = append(out, req("KV/Txn", "empty", &pb.TxnRequest{}), req("KV/Txn", "an operation that is none", &pb.TxnRequest{Success: []*pb.RequestOp{{}}}))
	for _, o := range []struct {
		what string
		op   *pb.RequestOp
	}{
		{"get a", opGet(get("a", ""))},
		{"get r", opGet(get("r", ""))},
		{"get w", opGet(get("w", ""))},
		{"get c", opGet(get("c", ""))},
		{"put a", opPut(&pb.PutRequest{Key: []byte("a")})},
		{"put c", opPut(&pb.PutRequest{Key: []byte("c")})},
		{"put w", opPut(&pb.PutRequest{Key: []byte("w")})},
		{"put w, prev_kv", opPut(&pb.PutRequest{Key: []byte("w"), PrevKv: true})},
		{"put a with a foreign lease", opPut(&pb.PutRequest{Key: []byte("a2"), Lease: 2})},
		{"put a with no lease", opPut(&pb.PutRequest{Key: []byte("a2"), Lease: 99})},
		{"delete a", opDelete(&pb.DeleteRangeRequest{Key: []byte("a0")})},
		{"delete w, prev_kv", opDelete(&pb.DeleteRangeRequest{Key: []byte("w"), PrevKv: true})},
		{"delete too much", opDelete(&pb.DeleteRangeRequest{Key: []byte("b5"), RangeEnd: []byte("d")})},
		{"compare c", opTxn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("c")}}})},
		{"compare a to c", opTxn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a"), RangeEnd: []byte("c")}}})},
		{"compare from a", opTxn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a"), RangeEnd: []byte{0}}}})},
	} {
		op, what := o.op, o.what
		for range 3 {
			out = append(out,
				req("KV/Txn", what, &pb.TxnRequest{Success: []*pb.RequestOp{op}}),
				req("KV/Txn", what+", not taken", &pb.TxnRequest{Failure: []*pb.RequestOp{op}}))
			op = opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{op}})
			what += ", nested"
		}
	}
	return out
}

func watches() (out []ask) {
	for _, r := range ranges {
		create := &pb.WatchCreateRequest{Key: []byte(r[0]), RangeEnd: []byte(r[1]), PrevKv: true}
		out = append(out, req("Watch/Watch", r[0]+" to "+r[1], &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
	}
	return out
}

func leases() (out []ask) {
	for id := range int64(7) {
		what := string(rune('0' + id))
		out = append(out,
			req("Lease/LeaseTimeToLive", what, &pb.LeaseTimeToLiveRequest{ID: id}),
			req("Lease/LeaseTimeToLive", what+", keys", &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}),
			req("Lease/LeaseKeepAlive", what, &pb.LeaseKeepAliveRequest{ID: id}))
	}
	out = append(out, req("Lease/LeaseLeases", "", &pb.LeaseLeasesRequest{}))
	for id := range int64(7) {
		if id > 0 {
			out = append(out, req("Lease/LeaseGrant", "one that may be there", &pb.LeaseGrantRequest{ID: id, TTL: 10_000}))
		}
		out = append(out, req("Lease/LeaseRevoke", string(rune('0'+id)), &pb.LeaseRevokeRequest{ID: id}))
	}
	return append(out, req("Lease/LeaseLeases", "none left", &pb.LeaseLeasesRequest{}))
}

// members asks for changes that fail even for those who may make them.
func members() []ask {
	return []ask{
		req("Cluster/MemberList", "", &pb.MemberListRequest{}), req("Cluster/MemberList", "linearizable", &pb.MemberListRequest{Linearizable: true}),
		{rpc: "Cluster/MemberAdd", what: "itself", of: func(s *side) proto.Message {
			return &pb.MemberAddRequest{PeerURLs: []string{s.Members[0].PeerURL}}
		}},
		req("Cluster/MemberAdd", withoutURLs, &pb.MemberAddRequest{}),
		req("Cluster/MemberAdd", wrongURL, &pb.MemberAddRequest{PeerURLs: []string{"://"}, IsLearner: true}),
		req("Cluster/MemberRemove", "nobody", &pb.MemberRemoveRequest{ID: 5}),
		req("Cluster/MemberUpdate", "nobody", &pb.MemberUpdateRequest{ID: 5, PeerURLs: []string{"http://127.0.0.1:1"}}),
		req("Cluster/MemberPromote", "nobody", &pb.MemberPromoteRequest{ID: 5}),
	}
}

func maintenance() []ask {
	return []ask{
		req("Maintenance/Status", "", &pb.StatusRequest{}),
		req("Maintenance/Alarm", "list", &pb.AlarmRequest{}),
		req("Maintenance/Alarm", "raise", &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 5, Alarm: pb.AlarmType_NOSPACE}),
		req("Maintenance/Alarm", "list again", &pb.AlarmRequest{}),
		req("Maintenance/Alarm", "disarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 5, Alarm: pb.AlarmType_NOSPACE}),
		req("Maintenance/Defragment", "", &pb.DefragmentRequest{}),
		req("Maintenance/Hash", "", &pb.HashRequest{}),
		req("Maintenance/HashKV", "", &pb.HashKVRequest{}),
		req("Maintenance/HashKV", "future", &pb.HashKVRequest{Revision: 1 << 40}),
		req("Maintenance/Snapshot", "", &pb.SnapshotRequest{}),
		req("Maintenance/MoveLeader", "", &pb.MoveLeaderRequest{TargetID: 5}),
		req("Maintenance/Downgrade", "validate", &pb.DowngradeRequest{Version: "3.9"}),
		req("Maintenance/Downgrade", "cancel", &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL}),
	}
}

// recipes: all candidates have the same lease, so nobody waits.
func recipes() (out []ask) {
	out = append(out, req("Lease/LeaseGrant", "for the recipes", &pb.LeaseGrantRequest{ID: 7, TTL: 10_000}))
	for _, name := range []string{"a", "x"} {
		won := &epb.LeaderKey{Name: []byte(name), Key: []byte(name + "/7"), Rev: 1, Lease: 7}
		out = append(out,
			req("Lock/Lock", name, &v3lockpb.LockRequest{Name: []byte(name), Lease: 7}),
			req("Lock/Unlock", name, &v3lockpb.UnlockRequest{Key: []byte(name + "/7")}),
			req("Election/Leader", name, &epb.LeaderRequest{Name: []byte(name)}),
			req("Election/Campaign", name, &epb.CampaignRequest{Name: []byte(name), Lease: 7, Value: []byte("v")}),
			req("Election/Leader", name+" again", &epb.LeaderRequest{Name: []byte(name)}),
			req("Election/Proclaim", name, &epb.ProclaimRequest{Leader: won, Value: []byte("w")}),
			req("Election/Resign", name, &epb.ResignRequest{Leader: won}))
	}
	return append(out,
		req("Election/Observe", observed, &epb.LeaderRequest{Name: []byte("a")}),
		req("Election/Proclaim", "nothing", &epb.ProclaimRequest{}), req("Election/Resign", "nothing", &epb.ResignRequest{}))
}

// management ends with switching authentication off, which root may.
func management() []ask {
	return []ask{
		req("Auth/AuthStatus", "", &pb.AuthStatusRequest{}),
		req("Auth/AuthEnable", "again", &pb.AuthEnableRequest{}),
		req("Auth/UserAdd", "", &pb.AuthUserAddRequest{Name: "new", Password: "pw"}),
		req("Auth/UserAdd", "one that is there", &pb.AuthUserAddRequest{Name: "ann", Password: "pw"}),
		req("Auth/UserGet", "ann", &pb.AuthUserGetRequest{Name: "ann"}), req("Auth/UserGet", "idle", &pb.AuthUserGetRequest{Name: "idle"}),
		req("Auth/UserGet", "nobody", &pb.AuthUserGetRequest{Name: "who"}), req("Auth/UserGet", "no name", &pb.AuthUserGetRequest{}),
		req("Auth/UserList", "", &pb.AuthUserListRequest{}),
		req("Auth/UserChangePassword", "", &pb.AuthUserChangePasswordRequest{Name: "new", Password: "x"}),
		req("Auth/UserChangePassword", "nobody's", &pb.AuthUserChangePasswordRequest{Name: "who", Password: "x"}),
		req("Auth/RoleAdd", "", &pb.AuthRoleAddRequest{Name: "role"}),
		req("Auth/RoleGet", "", &pb.AuthRoleGetRequest{Role: "some"}), req("Auth/RoleGet", "root", &pb.AuthRoleGetRequest{Role: "root"}),
		req("Auth/RoleGet", "none", &pb.AuthRoleGetRequest{Role: "nothing"}), req("Auth/RoleList", "", &pb.AuthRoleListRequest{}),
		req("Auth/RoleGrantPermission", "", &pb.AuthRoleGrantPermissionRequest{Name: "role", Perm: perm(authpb.Permission_READ, "k", "")}),
		req("Auth/RoleGrantPermission", "none", &pb.AuthRoleGrantPermissionRequest{Name: "role"}),
		req("Auth/UserGrantRole", "", &pb.AuthUserGrantRoleRequest{User: "new", Role: "role"}),
		req("Auth/UserRevokeRole", "", &pb.AuthUserRevokeRoleRequest{Name: "new", Role: "role"}),
		req("Auth/RoleRevokePermission", "", &pb.AuthRoleRevokePermissionRequest{Role: "role", Key: []byte("k")}),
		req("Auth/RoleDelete", "", &pb.AuthRoleDeleteRequest{Role: "role"}),
		req("Auth/UserDelete", "", &pb.AuthUserDeleteRequest{Name: "new"}),
		req("Auth/Authenticate", "", &pb.AuthenticateRequest{Name: "ann", Password: password("ann")}),
		req("Auth/Authenticate", "wrong", &pb.AuthenticateRequest{Name: "ann", Password: "?"}),
		req("Auth/AuthDisable", "", &pb.AuthDisableRequest{}),
	}
}
