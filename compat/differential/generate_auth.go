package differential

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// With authentication on, every request is sent by somebody: root, one of a few
// users whose roles change all the time, nobody, or forger, whose token is none.
// Two more users are left alone, because streams live by their tokens: keeper has
// the role root, onlooker the first two roles.
const (
	root     = "root"
	keeper   = "keeper"
	onlooker = "onlooker"
	forger   = "forger"
)

const (
	authUsers = 4
	authRoles = 4
)

// streamUser opens the watch streams.
func streamUser(auth bool, stream int) string {
	switch {
	case !auth:
		return ""
	case stream == 1:
		return onlooker
	}
	return keeper
}

// admin is who may do everything, and is never changed.
func (g *Generator) admin() string {
	if g.auth {
		return keeper
	}
	return ""
}

func userName(i int) string { return fmt.Sprintf("u%d", i) }
func roleName(i int) string { return fmt.Sprintf("r%d", i) }

// password is the one that a user has at first.
func password(user string) string { return "password of " + user }

// authSetup makes the users and switches authentication on.
func (g *Generator) authSetup() {
	add := func(kind Kind, req proto.Message) { g.next = append(g.next, Op{Kind: kind, Req: req}) }
	users := []string{root, keeper, onlooker}
	for i := range authUsers {
		users = append(users, userName(i))
	}
	for _, u := range users {
		add(UserAdd, &pb.AuthUserAddRequest{Name: u, Password: password(u)})
	}
	for i := range authRoles {
		add(RoleAdd, &pb.AuthRoleAddRequest{Name: roleName(i)})
		add(UserGrantRole, &pb.AuthUserGrantRoleRequest{User: userName(i), Role: roleName(i)})
	}
	for i, p := range []*authpb.Permission{
		{PermType: authpb.Permission_READWRITE, Key: []byte{0}, RangeEnd: []byte{0}},
		{PermType: authpb.Permission_READWRITE, Key: []byte("a/"), RangeEnd: []byte("a0")},
		{PermType: authpb.Permission_WRITE, Key: []byte("0"), RangeEnd: []byte("5")},
	} {
		add(RoleGrantPermission, &pb.AuthRoleGrantPermissionRequest{Name: roleName(i), Perm: p})
	}
	for _, u := range []string{root, keeper} {
		add(UserGrantRole, &pb.AuthUserGrantRoleRequest{User: u, Role: root})
	}
	for i := range 2 {
		add(UserGrantRole, &pb.AuthUserGrantRoleRequest{User: onlooker, Role: roleName(i)})
	}
	add(AuthEnable, &pb.AuthEnableRequest{})
}

// sender picks who sends a request.
func (g *Generator) sender() string {
	if !g.auth {
		return ""
	}
	switch n := g.r.IntN(100); {
	case n < 45:
		return root
	case n < 94:
		return userName(g.r.IntN(authUsers))
	case n < 97:
		return forger
	}
	return ""
}

// someUser is mostly one that exists, or existed.
func (g *Generator) someUser() string {
	switch g.r.IntN(20) {
	case 0:
		return root
	case 1:
		return []string{"", "nobody", root + "\x00"}[g.r.IntN(3)]
	}
	return userName(g.r.IntN(authUsers))
}

func (g *Generator) someRole() string {
	switch g.r.IntN(20) {
	case 0:
		return root
	case 1:
		return []string{"", "nothing"}[g.r.IntN(2)]
	}
	return roleName(g.r.IntN(authRoles))
}

// permission has any kind and any form of range, valid or not.
func (g *Generator) permission() *authpb.Permission {
	if g.chance(0.02) {
		return nil
	}
	key := g.key()
	p := &authpb.Permission{PermType: authpb.Permission_Type(g.r.IntN(3)), Key: key, RangeEnd: g.rangeEnd(key)}
	if g.chance(0.01) {
		p.PermType = 7
	}
	return p
}

// authChange makes a request of the Auth service.
func (g *Generator) authChange(kind Kind) Op {
	op := g.op(kind)
	switch kind {
	case AuthEnable:
		op.Req = &pb.AuthEnableRequest{}
	case AuthStatus:
		op.Req = &pb.AuthStatusRequest{}
	case Authenticate:
		op.User = ""
		u := g.someUser()
		op.Req = &pb.AuthenticateRequest{Name: u, Password: g.somePassword(u)}
	case UserAdd:
		req := &pb.AuthUserAddRequest{Name: g.someUser()}
		if req.Password = g.newPassword(req.Name); g.chance(0.1) {
			req.Options = &authpb.UserAddOptions{NoPassword: true}
		}
		op.Req = req
	case UserGet:
		op.Req = &pb.AuthUserGetRequest{Name: g.someUser()}
	case UserList:
		op.Req = &pb.AuthUserListRequest{}
	case UserDelete:
		op.Req = &pb.AuthUserDeleteRequest{Name: g.someUser()}
	case UserChangePassword:
		u := g.someUser()
		op.Req = &pb.AuthUserChangePasswordRequest{Name: u, Password: g.newPassword(u)}
	case UserGrantRole:
		op.Req = &pb.AuthUserGrantRoleRequest{User: g.someUser(), Role: g.someRole()}
	case UserRevokeRole:
		op.Req = &pb.AuthUserRevokeRoleRequest{Name: g.someUser(), Role: g.someRole()}
	case RoleAdd:
		op.Req = &pb.AuthRoleAddRequest{Name: g.someRole()}
	case RoleGet:
		op.Req = &pb.AuthRoleGetRequest{Role: g.someRole()}
	case RoleList:
		op.Req = &pb.AuthRoleListRequest{}
	case RoleDelete:
		op.Req = &pb.AuthRoleDeleteRequest{Role: g.someRole()}
	case RoleGrantPermission:
		op.Req = &pb.AuthRoleGrantPermissionRequest{Name: g.someRole(), Perm: g.permission()}
	case RoleRevokePermission:
		key := g.key()
		op.Req = &pb.AuthRoleRevokePermissionRequest{Role: g.someRole(), Key: key, RangeEnd: g.rangeEnd(key)}
	}
	return op
}

// A user has one of two passwords. None is empty: kvd refuses that, etcd does
// not (TestPasswordPolicy of package auth).
func (g *Generator) newPassword(user string) string {
	if g.chance(0.5) {
		return password(user)
	}
	return "another " + password(user)
}

func (g *Generator) somePassword(user string) string {
	if g.chance(0.1) {
		return "wrong"
	}
	return g.newPassword(user)
}
