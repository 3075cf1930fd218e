package server

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// changeAuth evaluates a command of users, roles and permissions.
func (a *applier) changeAuth(tx rawWriter, kind uint8, body []byte) error {
	next, rows, err := changeOf(a.s.auth.now.Load(), kind, body)
	if err != nil {
		return err
	}
	a.s.auth.adopt(tx, next, rows)
	a.s.log.Info("users or roles changed", "command", kind, "by", a.guard.who.Name, "enabled", next.Enabled, "auth-revision", next.Revision)
	return nil
}

// changeOf is what a command makes of a state. It depends on the two alone.
func changeOf(s *auth.State, kind uint8, body []byte) (*auth.State, []engine.Op, error) {
	switch kind {
	case commandAuthEnable:
		return s.Enable(body)
	case commandAuthDisable:
		return s.Disable()
	case commandAuthSecret:
		return s.Share(body)
	case commandUserAdd:
		return change(body, &pb.AuthUserAddRequest{}, s.UserAdd)
	case commandUserDelete:
		return change(body, &pb.AuthUserDeleteRequest{}, s.UserDelete)
	case commandUserChangePassword:
		return change(body, &pb.AuthUserChangePasswordRequest{}, s.UserChangePassword)
	case commandUserGrantRole:
		return change(body, &pb.AuthUserGrantRoleRequest{}, s.UserGrantRole)
	case commandUserRevokeRole:
		return change(body, &pb.AuthUserRevokeRoleRequest{}, s.UserRevokeRole)
	case commandRoleAdd:
		return change(body, &pb.AuthRoleAddRequest{}, s.RoleAdd)
	case commandRoleDelete:
		return change(body, &pb.AuthRoleDeleteRequest{}, s.RoleDelete)
	case commandRoleGrantPermission:
		return change(body, &pb.AuthRoleGrantPermissionRequest{}, s.RoleGrantPermission)
	case commandRoleRevokePermission:
		return change(body, &pb.AuthRoleRevokePermissionRequest{}, s.RoleRevokePermission)
	}
	return nil, nil, fmt.Errorf("command of kind %d changes no users", kind)
}

func change[M proto.Message](body []byte, m M, to func(M) (*auth.State, []engine.Op, error)) (*auth.State, []engine.Op, error) {
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, nil, err
	}
	return to(m)
}
