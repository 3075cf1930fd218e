package auth

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/wire"
)

// step is a request, and who sends it.
type step struct {
	user string
	ask
}

// by is a step without a word: the request says what it is.
func by(user, rpc string, m proto.Message) step { return step{user, req(rpc, "", m)} }

func (p *pair) play(steps []step) {
	p.t.Helper()
	for i, s := range steps {
		s.what = strings.Join(strings.Fields(string(s.req.ProtoReflect().Descriptor().Name())), " ") + " " + s.req.(interface{ String() string }).String()
		if p.t.Failed() {
			p.t.Fatalf("after step %d", i)
		}
		p.same(s.ask, s.user)
		// The auth revision shows whether something changed.
		p.same(req("Auth/AuthStatus", "after "+s.what, &pb.AuthStatusRequest{}), "")
	}
}

// TestRules: what the Auth service refuses and what counts as a change, while
// authentication is off, on, off for a while, and on again.
func TestRules(t *testing.T) {
	p := start(t, cluster.Options{})
	p.play(before)
	p.play([]step{by("", "Auth/AuthEnable", &pb.AuthEnableRequest{})})
	p.play(while)
	for _, m := range wire.Methods() {
		if service, _, _ := strings.Cut(m.Name, "/"); service == "Auth" && !played(m.Name, before, while) {
			t.Errorf("no step asks %s", m.Name)
		}
	}
}

func played(rpc string, lists ...[]step) bool {
	for _, l := range lists {
		for _, s := range l {
			if s.rpc == rpc {
				return true
			}
		}
	}
	return false
}

// before are steps without authentication.
var before = []step{
	by("", "Auth/AuthStatus", &pb.AuthStatusRequest{}),
	by("", "Auth/AuthEnable", &pb.AuthEnableRequest{}), by("", "Auth/AuthDisable", &pb.AuthDisableRequest{}),
	by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "root", Password: "x"}), by(forger, "KV/Put", &pb.PutRequest{Key: []byte("k")}),
	by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Password: "x"}), by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "root", Password: password("root")}),
	by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "root", Password: "y"}), by("", "Auth/AuthEnable", &pb.AuthEnableRequest{}),
	by("", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}), by("", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}),
	by("", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "root"}), by("", "Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "root"}), by("", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "root"}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "root", Perm: perm(authpb.Permission_READ, "k", "")}), by("", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "root"}),
	by("", "Auth/RoleAdd", &pb.AuthRoleAddRequest{}), by("", "Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "r"}), by("", "Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "r"}),
	by("", "Auth/RoleDelete", &pb.AuthRoleDeleteRequest{}), by("", "Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "q"}),
	by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "u", Password: password("u"), Options: &authpb.UserAddOptions{}}),
	by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "cert", Options: &authpb.UserAddOptions{NoPassword: true}}),
	by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "cert2", Password: "ignored", Options: &authpb.UserAddOptions{NoPassword: true}}),
	by("", "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "cert", Password: "x"}),
	by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "long", Password: strings.Repeat("p", 72)}), by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "longer", Password: strings.Repeat("p", 73)}),
	by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "hash", Password: "p", HashedPassword: "no base64!"}),
	by("", "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "u", HashedPassword: "no base64!"}),
	by("", "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "q", Password: "x"}), by("", "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Password: "x"}),
	by("", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "q", Role: "r"}), by("", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "u", Role: "q"}),
	by("", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "u", Role: "r"}), by("", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "u"}),
	by("", "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "u", Role: "q"}), by("", "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "q", Role: "r"}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r"}), by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "q", Perm: perm(authpb.Permission_READ, "k", "")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(authpb.Permission_READ, "", "")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(authpb.Permission_READ, "", "\x00")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(authpb.Permission_READ, "b", "a")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(authpb.Permission_READ, "b", "b")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(authpb.Permission_READ, "b", "\x00")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(authpb.Permission_WRITE, "b", "\x00")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(authpb.Permission_READWRITE, "b", "")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(authpb.Permission_READ, "b", "\x00")}),
	by("", "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: perm(7, "z", "")}),
	by("", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "r"}), by("", "Auth/RoleGet", &pb.AuthRoleGetRequest{}),
	by("", "Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("b"), RangeEnd: []byte("c")}),
	by("", "Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "q", Key: []byte("b")}),
	by("", "Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("b"), RangeEnd: []byte{0}}), by("", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "r"}),
	by("", "Auth/UserGet", &pb.AuthUserGetRequest{Name: "root"}), by("", "Auth/UserGet", &pb.AuthUserGetRequest{Name: "u"}), by("", "Auth/UserGet", &pb.AuthUserGetRequest{}),
	by("", "Auth/UserList", &pb.AuthUserListRequest{}), by("", "Auth/RoleList", &pb.AuthRoleListRequest{}), by("", "Auth/UserDelete", &pb.AuthUserDeleteRequest{}),
	by("", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "a name with ünïcode\n", Password: "x"}), by("", "Auth/UserList", &pb.AuthUserListRequest{}),
}

// while are steps with authentication on.
var while = []step{
	by("", "Auth/AuthEnable", &pb.AuthEnableRequest{}), by("u", "Auth/AuthEnable", &pb.AuthEnableRequest{}), by("root", "Auth/AuthEnable", &pb.AuthEnableRequest{}),
	by("root", "Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: "root"}), by("root", "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "root"}),
	by("root", "Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "root"}), by("root", "Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: "root"}),
	by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "cert"}), by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "cert2", Password: "ignored"}),
	by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "long", Password: strings.Repeat("p", 72)}), by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "long", Password: strings.Repeat("p", 73)}),
	by("root", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "u", Role: "root"}), by("u", "Auth/UserList", &pb.AuthUserListRequest{}), by("u", "KV/Put", &pb.PutRequest{Key: []byte("zz")}),
	by("u", "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "root"}), by("u", "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "u", Role: "root"}),
	by("u", "Auth/UserList", &pb.AuthUserListRequest{}), by("u", "KV/Put", &pb.PutRequest{Key: []byte("zz")}), by("u", "KV/Range", get("b", "")),
	by("u", "Auth/UserGet", &pb.AuthUserGetRequest{Name: "u"}), by("u", "Auth/UserGet", &pb.AuthUserGetRequest{Name: "root"}),
	by("u", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "r"}), by("u", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "root"}), by("u", "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "q"}),
	by("u", "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "u", Password: "mine"}), by("u", "Auth/AuthDisable", &pb.AuthDisableRequest{}),
	by("root", "Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "r"}), by("root", "Auth/UserGet", &pb.AuthUserGetRequest{Name: "u"}), by("u", "KV/Range", get("b", "")),
	by("root", "Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: "u"}), by("u", "KV/Range", get("b", "")), by("u", "Auth/UserGet", &pb.AuthUserGetRequest{Name: "u"}),
	by("root", "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "u", Password: password("u")}), by("u", "KV/Range", get("b", "")),
	by("root", "Auth/AuthDisable", &pb.AuthDisableRequest{}), by(forger, "KV/Put", &pb.PutRequest{Key: []byte("k")}), by("root", "KV/Range", get("k", "")),
	by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "u", Password: password("u")}), by("", "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "root", Role: "root"}),
	by("", "Auth/AuthEnable", &pb.AuthEnableRequest{}), by("", "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}), by("", "Auth/AuthEnable", &pb.AuthEnableRequest{}),
	by("root", "KV/Range", get("k", "")), by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "u", Password: password("u")}),
	by("root", "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "root", Password: "another"}), by("root", "KV/Range", get("b", "")),
	by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "root", Password: password("root")}), by("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "root", Password: "another"}),
}
