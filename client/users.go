package client

import (
	"context"

	"go.etcd.io/etcd/api/v3/authpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Auth manages users, roles and what they may do.
type Auth struct{ c *Client }

// Auth returns the client's way to users and roles.
func (c *Client) Auth() Auth { return Auth{c} }

// Access is what a permission allows.
type Access int32

// What a permission can allow.
const (
	MayRead      = Access(authpb.Permission_READ)
	MayWrite     = Access(authpb.Permission_WRITE)
	MayReadWrite = Access(authpb.Permission_READWRITE)
)

// Permission is access to a range of keys.
type Permission struct {
	Access Access
	Keys   Range
}

// Enable turns authentication on. The user root with the role root must exist.
func (a Auth) Enable(ctx context.Context) error {
	return a.c.send(ctx, pb.Auth_AuthEnable_FullMethodName, &pb.AuthEnableRequest{}, &pb.AuthEnableResponse{})
}

// Disable turns authentication off.
func (a Auth) Disable(ctx context.Context) error {
	return a.c.send(ctx, pb.Auth_AuthDisable_FullMethodName, &pb.AuthDisableRequest{}, &pb.AuthDisableResponse{})
}

// Status tells whether authentication is on, and the revision of users and roles.
func (a Auth) Status(ctx context.Context) (enabled bool, revision uint64, err error) {
	out := &pb.AuthStatusResponse{}
	err = a.c.send(ctx, pb.Auth_AuthStatus_FullMethodName, &pb.AuthStatusRequest{}, out)
	return out.Enabled, out.AuthRevision, err
}

// AddUser adds a user. Without a password the user can only log in with a
// certificate.
func (a Auth) AddUser(ctx context.Context, name, password string) error {
	in := &pb.AuthUserAddRequest{Name: name, Password: password, Options: &authpb.UserAddOptions{NoPassword: password == ""}}
	return a.c.send(ctx, pb.Auth_UserAdd_FullMethodName, in, &pb.AuthUserAddResponse{})
}

// DeleteUser deletes a user, whose tokens end with it.
func (a Auth) DeleteUser(ctx context.Context, name string) error {
	return a.c.send(ctx, pb.Auth_UserDelete_FullMethodName, &pb.AuthUserDeleteRequest{Name: name}, &pb.AuthUserDeleteResponse{})
}

// ChangePassword sets a user's password.
func (a Auth) ChangePassword(ctx context.Context, name, password string) error {
	in := &pb.AuthUserChangePasswordRequest{Name: name, Password: password}
	return a.c.send(ctx, pb.Auth_UserChangePassword_FullMethodName, in, &pb.AuthUserChangePasswordResponse{})
}

// GrantRole gives a user a role.
func (a Auth) GrantRole(ctx context.Context, user, role string) error {
	in := &pb.AuthUserGrantRoleRequest{User: user, Role: role}
	return a.c.send(ctx, pb.Auth_UserGrantRole_FullMethodName, in, &pb.AuthUserGrantRoleResponse{})
}

// RevokeRole takes a role from a user.
func (a Auth) RevokeRole(ctx context.Context, user, role string) error {
	in := &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}
	return a.c.send(ctx, pb.Auth_UserRevokeRole_FullMethodName, in, &pb.AuthUserRevokeRoleResponse{})
}

// User returns the roles of a user.
func (a Auth) User(ctx context.Context, name string) ([]string, error) {
	out := &pb.AuthUserGetResponse{}
	err := a.c.send(ctx, pb.Auth_UserGet_FullMethodName, &pb.AuthUserGetRequest{Name: name}, out)
	return out.Roles, err
}

// Users returns the names of all users.
func (a Auth) Users(ctx context.Context) ([]string, error) {
	out := &pb.AuthUserListResponse{}
	err := a.c.send(ctx, pb.Auth_UserList_FullMethodName, &pb.AuthUserListRequest{}, out)
	return out.Users, err
}

// AddRole adds a role that may do nothing yet.
func (a Auth) AddRole(ctx context.Context, name string) error {
	return a.c.send(ctx, pb.Auth_RoleAdd_FullMethodName, &pb.AuthRoleAddRequest{Name: name}, &pb.AuthRoleAddResponse{})
}

// DeleteRole deletes a role and takes it from everybody.
func (a Auth) DeleteRole(ctx context.Context, name string) error {
	return a.c.send(ctx, pb.Auth_RoleDelete_FullMethodName, &pb.AuthRoleDeleteRequest{Role: name}, &pb.AuthRoleDeleteResponse{})
}

// Grant lets a role access keys.
func (a Auth) Grant(ctx context.Context, role string, p Permission) error {
	key, end := a.c.wire(p.Keys)
	in := &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{
		PermType: authpb.Permission_Type(p.Access), Key: key, RangeEnd: end,
	}}
	return a.c.send(ctx, pb.Auth_RoleGrantPermission_FullMethodName, in, &pb.AuthRoleGrantPermissionResponse{})
}

// RevokeGrant takes a permission back. The range must be the one that was
// granted.
func (a Auth) RevokeGrant(ctx context.Context, role string, keys Range) error {
	key, end := a.c.wire(keys)
	in := &pb.AuthRoleRevokePermissionRequest{Role: role, Key: key, RangeEnd: end}
	return a.c.send(ctx, pb.Auth_RoleRevokePermission_FullMethodName, in, &pb.AuthRoleRevokePermissionResponse{})
}

// Role returns what a role may do. Ranges are the store's, whatever the
// namespace of the client.
func (a Auth) Role(ctx context.Context, name string) ([]Permission, error) {
	out := &pb.AuthRoleGetResponse{}
	err := a.c.send(ctx, pb.Auth_RoleGet_FullMethodName, &pb.AuthRoleGetRequest{Role: name}, out)
	var list []Permission
	for _, p := range out.Perm {
		list = append(list, Permission{Access: Access(p.PermType), Keys: Range{string(p.Key), string(p.RangeEnd)}})
	}
	return list, err
}

// Roles returns the names of all roles.
func (a Auth) Roles(ctx context.Context) ([]string, error) {
	out := &pb.AuthRoleListResponse{}
	err := a.c.send(ctx, pb.Auth_RoleList_FullMethodName, &pb.AuthRoleListRequest{}, out)
	return out.Roles, err
}
