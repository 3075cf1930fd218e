package differential

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/wire"
)

// Kind is what an Op does.
type Kind string

const (
	Range       Kind = "range"
	RangeStream Kind = "rangestream"
	Put         Kind = "put"
	Delete      Kind = "delete"
	Txn         Kind = "txn"
	Compact     Kind = "compact"
	Grant       Kind = "grant"
	Revoke      Kind = "revoke"
	KeepAlive   Kind = "keepalive"
	TimeToLive  Kind = "timetolive"
	Leases      Kind = "leases"
	Watch       Kind = "watch"
	CancelWatch Kind = "cancelwatch"
	// SyncWatch waits until all watches of all streams have what they are owed,
	// then compares it.
	SyncWatch Kind = "syncwatch"

	MemberList Kind = "memberlist"
	Status     Kind = "status"
	Alarm      Kind = "alarm"
	Hash       Kind = "hash"
	HashKV     Kind = "hashkv"
	Defragment Kind = "defragment"

	Lock     Kind = "lock"
	Unlock   Kind = "unlock"
	Campaign Kind = "campaign"
	Proclaim Kind = "proclaim"
	Leader   Kind = "leader"
	Observe  Kind = "observe"
	Resign   Kind = "resign"

	AuthEnable           Kind = "authenable"
	AuthStatus           Kind = "authstatus"
	Authenticate         Kind = "authenticate"
	UserAdd              Kind = "useradd"
	UserGet              Kind = "userget"
	UserList             Kind = "userlist"
	UserDelete           Kind = "userdelete"
	UserChangePassword   Kind = "userpassword"
	UserGrantRole        Kind = "usergrant"
	UserRevokeRole       Kind = "userrevoke"
	RoleAdd              Kind = "roleadd"
	RoleGet              Kind = "roleget"
	RoleList             Kind = "rolelist"
	RoleDelete           Kind = "roledelete"
	RoleGrantPermission  Kind = "rolegrant"
	RoleRevokePermission Kind = "rolerevoke"
)

// rpcs says which RPC a kind is. Watches have kinds of their own.
var rpcs = map[Kind]string{
	Range: "KV/Range", RangeStream: "KV/RangeStream", Put: "KV/Put", Delete: "KV/DeleteRange", Txn: "KV/Txn", Compact: "KV/Compact",
	Grant: "Lease/LeaseGrant", Revoke: "Lease/LeaseRevoke", KeepAlive: "Lease/LeaseKeepAlive", TimeToLive: "Lease/LeaseTimeToLive", Leases: "Lease/LeaseLeases",
	MemberList: "Cluster/MemberList", Status: "Maintenance/Status", Alarm: "Maintenance/Alarm", Hash: "Maintenance/Hash", HashKV: "Maintenance/HashKV",
	Defragment: "Maintenance/Defragment",
	Lock:       "Lock/Lock", Unlock: "Lock/Unlock",
	Campaign: "Election/Campaign", Proclaim: "Election/Proclaim", Leader: "Election/Leader", Observe: "Election/Observe", Resign: "Election/Resign",
	AuthEnable: "Auth/AuthEnable", AuthStatus: "Auth/AuthStatus", Authenticate: "Auth/Authenticate",
	UserAdd: "Auth/UserAdd", UserGet: "Auth/UserGet", UserList: "Auth/UserList", UserDelete: "Auth/UserDelete", UserChangePassword: "Auth/UserChangePassword",
	UserGrantRole: "Auth/UserGrantRole", UserRevokeRole: "Auth/UserRevokeRole",
	RoleAdd: "Auth/RoleAdd", RoleGet: "Auth/RoleGet", RoleList: "Auth/RoleList", RoleDelete: "Auth/RoleDelete",
	RoleGrantPermission: "Auth/RoleGrantPermission", RoleRevokePermission: "Auth/RoleRevokePermission",
}

// Op is one step. Its request may hold symbols.
type Op struct {
	Kind   Kind
	Member int    // which member gets it, modulo their number
	Stream int    // of the watch operations
	User   string // who sends it: nobody, a user, or forger
	Req    proto.Message
}

func newRequest(k Kind) (proto.Message, error) {
	switch k {
	case Watch:
		return &pb.WatchCreateRequest{}, nil
	case CancelWatch:
		return &pb.WatchCancelRequest{}, nil
	case SyncWatch:
		return &pb.WatchProgressRequest{}, nil
	}
	m, err := wire.Lookup(rpcs[k])
	if err != nil {
		return nil, fmt.Errorf("unknown kind %q", k)
	}
	return m.Request(), nil
}

type opJSON struct {
	Kind   Kind            `json:"kind"`
	Member int             `json:"member,omitempty"`
	Stream int             `json:"stream,omitempty"`
	User   string          `json:"user,omitempty"`
	Req    json.RawMessage `json:"req"`
}

// MarshalJSON writes the op as one line of a replay file.
func (o Op) MarshalJSON() ([]byte, error) {
	req, err := protojson.Marshal(o.Req)
	if err != nil {
		return nil, err
	}
	return json.Marshal(opJSON{o.Kind, o.Member, o.Stream, o.User, req})
}

// UnmarshalJSON reads it back.
func (o *Op) UnmarshalJSON(data []byte) error {
	var j opJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	req, err := newRequest(j.Kind)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(j.Req, req); err != nil {
		return err
	}
	*o = Op{j.Kind, j.Member, j.Stream, j.User, req}
	return nil
}

// WriteOps writes a replay file: one op a line.
func WriteOps(w io.Writer, ops []Op) error {
	enc := json.NewEncoder(w)
	for _, op := range ops {
		if err := enc.Encode(op); err != nil {
			return err
		}
	}
	return nil
}

// ReadOps reads a replay file.
func ReadOps(r io.Reader) ([]Op, error) {
	var ops []Op
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var op Op
		if err := dec.Decode(&op); err == io.EOF {
			return ops, nil
		} else if err != nil {
			return nil, fmt.Errorf("op %d: %w", len(ops), err)
		}
		ops = append(ops, op)
	}
}
