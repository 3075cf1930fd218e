package server

import (
	"context"
	"encoding/base64"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/raft"
)

// authService is etcdserverpb.Auth. What changes users and roles is a command;
// what only asks is answered here, after a read barrier (etcd sends it through
// the log, too; the answers are the same).
var authService = grpc.ServiceDesc{
	ServiceName: "etcdserverpb.Auth",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		unary("etcdserverpb.Auth", "Authenticate", (*Server).authenticate),
		unary("etcdserverpb.Auth", "AuthStatus", (*Server).authStatus),
		unary("etcdserverpb.Auth", "AuthEnable", (*Server).authEnable),
		unary("etcdserverpb.Auth", "AuthDisable", authChange[pb.AuthDisableRequest](commandAuthDisable)),
		unary("etcdserverpb.Auth", "UserAdd", (*Server).userAdd),
		unary("etcdserverpb.Auth", "UserGet", (*Server).userGet),
		unary("etcdserverpb.Auth", "UserList", (*Server).userList),
		unary("etcdserverpb.Auth", "UserDelete", authChange[pb.AuthUserDeleteRequest](commandUserDelete)),
		unary("etcdserverpb.Auth", "UserChangePassword", (*Server).userChangePassword),
		unary("etcdserverpb.Auth", "UserGrantRole", authChange[pb.AuthUserGrantRoleRequest](commandUserGrantRole)),
		unary("etcdserverpb.Auth", "UserRevokeRole", authChange[pb.AuthUserRevokeRoleRequest](commandUserRevokeRole)),
		unary("etcdserverpb.Auth", "RoleAdd", authChange[pb.AuthRoleAddRequest](commandRoleAdd)),
		unary("etcdserverpb.Auth", "RoleGet", (*Server).roleGet),
		unary("etcdserverpb.Auth", "RoleList", (*Server).roleList),
		unary("etcdserverpb.Auth", "RoleDelete", authChange[pb.AuthRoleDeleteRequest](commandRoleDelete)),
		unary("etcdserverpb.Auth", "RoleGrantPermission", authChange[pb.AuthRoleGrantPermissionRequest](commandRoleGrantPermission)),
		unary("etcdserverpb.Auth", "RoleRevokePermission", authChange[pb.AuthRoleRevokePermissionRequest](commandRoleRevokePermission)),
	},
	Metadata: "rpc.proto",
}

// message is a request of etcd's protocol, decoded by the generated code.
type message[M any] struct{ m M }

func (r *message[M]) decode(body []byte) error { return proto.Unmarshal(body, r.proto()) }

func (r *message[M]) proto() proto.Message { return any(&r.m).(proto.Message) }

// authChange proposes a request that carries no password.
func authChange[M any](kind uint8) func(*Server, context.Context, *message[M]) (*Encoded, error) {
	return func(s *Server, ctx context.Context, r *message[M]) (*Encoded, error) {
		return s.proposeMessage(ctx, kind, r.proto())
	}
}

func (s *Server) proposeMessage(ctx context.Context, kind uint8, m proto.Message) (*Encoded, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return s.propose(ctx, kind, body, nil)
}

// authEnable draws the secret of the tokens to come.
func (s *Server) authEnable(ctx context.Context, _ *message[pb.AuthEnableRequest]) (*Encoded, error) {
	return s.propose(ctx, commandAuthEnable, randomBytes(), nil)
}

// userAdd hashes the password before anything is replicated, whether the client
// sent a hash or not. Only administrators make this member work so hard: the
// table was asked before.
func (s *Server) userAdd(ctx context.Context, r *message[pb.AuthUserAddRequest]) (*Encoded, error) {
	if !r.m.GetOptions().GetNoPassword() {
		if r.m.Name != "" && len(r.m.Password) < int(s.cfg.MinPasswordLength) {
			return nil, api.ErrPasswordTooShort
		}
		hash, err := s.auth.passwords.Hash(ctx, r.m.Password)
		if err != nil {
			return nil, err
		}
		r.m.HashedPassword = base64.StdEncoding.EncodeToString(hash)
	}
	r.m.Password = ""
	return s.proposeMessage(ctx, commandUserAdd, &r.m)
}

// userChangePassword hashes the password; a client may also send a hash alone.
func (s *Server) userChangePassword(ctx context.Context, r *message[pb.AuthUserChangePasswordRequest]) (*Encoded, error) {
	_, open, known := s.auth.now.Load().Password(r.m.Name)
	if known && open && r.m.HashedPassword == "" || r.m.Password != "" {
		if len(r.m.Password) < int(s.cfg.MinPasswordLength) {
			return nil, api.ErrPasswordTooShort
		}
	}
	if r.m.Password != "" {
		hash, err := s.auth.passwords.Hash(ctx, r.m.Password)
		if err != nil {
			return nil, err
		}
		r.m.HashedPassword = base64.StdEncoding.EncodeToString(hash)
		r.m.Password = ""
	}
	return s.proposeMessage(ctx, commandUserChangePassword, &r.m)
}

// inquire answers what only asks: by the state after everything that was
// acknowledged before. The caller is established first, as in etcd.
func (s *Server) inquire(ctx context.Context, answer func(*auth.State, auth.Principal) (proto.Message, error)) (*Encoded, error) {
	who, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.node.ReadBarrier(ctx); err != nil {
		if err == error(api.ErrTimeout) && s.node.Status().Leader == 0 {
			err = proposalError(raft.ErrNotProposed) // what it is in etcd
		}
		return nil, err
	}
	m, err := answer(s.auth.now.Load(), who)
	if err != nil {
		return nil, err
	}
	fields, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return s.answer(fields, s.Store().Revision(), s.node.Status().Term), nil
}

func (s *Server) authStatus(ctx context.Context, _ *message[pb.AuthStatusRequest]) (*Encoded, error) {
	return s.inquire(ctx, func(state *auth.State, _ auth.Principal) (proto.Message, error) {
		return &pb.AuthStatusResponse{Enabled: state.Enabled, AuthRevision: state.Revision}, nil
	})
}

func (s *Server) userGet(ctx context.Context, r *message[pb.AuthUserGetRequest]) (*Encoded, error) {
	return s.inquire(ctx, func(state *auth.State, who auth.Principal) (proto.Message, error) {
		if err := state.MayAdminister(who); err != nil && r.m.Name != who.Name {
			return nil, err
		}
		roles, ok := state.RolesOf(r.m.Name)
		if !ok {
			return nil, api.ErrUserNotFound
		}
		return &pb.AuthUserGetResponse{Roles: roles}, nil
	})
}

func (s *Server) roleGet(ctx context.Context, r *message[pb.AuthRoleGetRequest]) (*Encoded, error) {
	return s.inquire(ctx, func(state *auth.State, who auth.Principal) (proto.Message, error) {
		if err := state.MayAdminister(who); err != nil && !state.HasRole(who.Name, r.m.Role) {
			return nil, err
		}
		perms, ok := state.Permissions(r.m.Role)
		if !ok {
			return nil, api.ErrRoleNotFound
		}
		return &pb.AuthRoleGetResponse{Perm: perms}, nil
	})
}

func (s *Server) userList(ctx context.Context, _ *message[pb.AuthUserListRequest]) (*Encoded, error) {
	return s.inquire(ctx, func(state *auth.State, who auth.Principal) (proto.Message, error) {
		return &pb.AuthUserListResponse{Users: state.Users()}, state.MayAdminister(who)
	})
}

func (s *Server) roleList(ctx context.Context, _ *message[pb.AuthRoleListRequest]) (*Encoded, error) {
	return s.inquire(ctx, func(state *auth.State, who auth.Principal) (proto.Message, error) {
		return &pb.AuthRoleListResponse{Roles: state.Roles()}, state.MayAdminister(who)
	})
}
