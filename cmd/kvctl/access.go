package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// authDo makes one request about users and roles and prints what it returned.
func authDo[R any](a *app, did string, do func(ctx context.Context, c pb.AuthClient) (R, error), show func(w io.Writer, resp R)) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		var resp R
		err := a.call(ctx, did, func(ctx context.Context, r *remote) (err error) {
			resp, err = do(ctx, r.auth())
			return err
		})
		if err != nil {
			return err
		}
		return a.show(result{value: resp, simple: func(w io.Writer) { show(w, resp) }})
	}
}

// said prints one line, whatever the answer.
func said[R any](format string, args ...any) func(io.Writer, R) {
	return func(w io.Writer, _ R) { fmt.Fprintf(w, format+"\n", args...) }
}

func (a *app) authCommand() *cobra.Command {
	status := verb("status", "Is authentication on?", "  kvctl auth status", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return authDo(a, "ask for the auth status", func(ctx context.Context, c pb.AuthClient) (*pb.AuthStatusResponse, error) {
			return c.AuthStatus(ctx, &pb.AuthStatusRequest{})
		}, func(w io.Writer, r *pb.AuthStatusResponse) {
			fmt.Fprintf(w, "Authentication Status: %v\nAuthRevision: %d\n", r.Enabled, r.AuthRevision)
		})(ctx)
	})
	enable := verb("enable", "Turn authentication on; needs a user root with the role root", "  kvctl auth enable", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return authDo(a, "enable authentication", func(ctx context.Context, c pb.AuthClient) (*pb.AuthEnableResponse, error) {
			return c.AuthEnable(ctx, &pb.AuthEnableRequest{})
		}, said[*pb.AuthEnableResponse]("Authentication Enabled"))(ctx)
	})
	disable := verb("disable", "Turn authentication off", "  kvctl auth disable --user root", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return authDo(a, "disable authentication", func(ctx context.Context, c pb.AuthClient) (*pb.AuthDisableResponse, error) {
			return c.AuthDisable(ctx, &pb.AuthDisableRequest{})
		}, said[*pb.AuthDisableResponse]("Authentication Disabled"))(ctx)
	})
	return family("auth", "Authentication as a whole", status, enable, disable)
}

// newPassword comes from a flag, else from the operator, asked twice on a terminal.
func (a *app) newPassword(name, given string, interactive bool) (string, error) {
	if given != "" {
		return given, nil
	}
	first, err := a.askSecret(fmt.Sprintf("Password of %s: ", name))
	if err != nil {
		return "", usage("no password: %v", err)
	}
	if interactive && terminal(a.in) {
		again, err := a.askSecret(fmt.Sprintf("Type password of %s again for confirmation: ", name))
		if err != nil || again != first {
			return "", usage("the passwords differ")
		}
	}
	return first, nil
}

func (a *app) userAdd() *cobra.Command {
	var given string
	var none, interactive bool
	c := verb("add NAME[:PASSWORD]", "Make a user", "  kvctl user add alice", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		name, password, has := strings.Cut(args[0], ":")
		r := &pb.AuthUserAddRequest{Name: name, Options: &authpb.UserAddOptions{NoPassword: none}}
		switch {
		case none:
		case has:
			r.Password = password
		default:
			var err error
			if r.Password, err = a.newPassword(name, given, interactive); err != nil {
				return err
			}
		}
		return authDo(a, "add user "+name, func(ctx context.Context, c pb.AuthClient) (*pb.AuthUserAddResponse, error) {
			return c.UserAdd(ctx, r)
		}, said[*pb.AuthUserAddResponse]("User %s created", name))(ctx)
	})
	c.Flags().StringVar(&given, "new-user-password", "", "the password; without it kvctl asks")
	c.Flags().BoolVar(&none, "no-password", false, "no password: known by certificate only")
	c.Flags().BoolVar(&interactive, "interactive", true, "ask twice; false: read one line from standard input")
	return c
}

func (a *app) userCommand() *cobra.Command {
	var detail bool
	get := verb("get NAME", "Show a user's roles", "  kvctl user get alice --detail", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return a.userGet(ctx, args[0], detail)
	})
	get.Flags().BoolVar(&detail, "detail", false, "and what the roles permit")
	list := verb("list", "Show all users", "  kvctl user list", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return authDo(a, "list the users", func(ctx context.Context, c pb.AuthClient) (*pb.AuthUserListResponse, error) {
			return c.UserList(ctx, &pb.AuthUserListRequest{})
		}, func(w io.Writer, r *pb.AuthUserListResponse) { lines(w, r.Users) })(ctx)
	})
	remove := verb("delete NAME", "Delete a user", "  kvctl user delete alice", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return authDo(a, "delete user "+args[0], func(ctx context.Context, c pb.AuthClient) (*pb.AuthUserDeleteResponse, error) {
			return c.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: args[0]})
		}, said[*pb.AuthUserDeleteResponse]("User %s deleted", args[0]))(ctx)
	})
	var interactive bool
	passwd := verb("passwd NAME", "Change a password", "  kvctl user passwd alice", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		password, err := a.newPassword(args[0], "", interactive)
		if err != nil {
			return err
		}
		return authDo(a, "change the password of "+args[0], func(ctx context.Context, c pb.AuthClient) (*pb.AuthUserChangePasswordResponse, error) {
			return c.UserChangePassword(ctx, &pb.AuthUserChangePasswordRequest{Name: args[0], Password: password})
		}, said[*pb.AuthUserChangePasswordResponse]("Password updated"))(ctx)
	})
	passwd.Flags().BoolVar(&interactive, "interactive", true, "ask twice; false: read one line from standard input")
	grant := verb("grant-role NAME ROLE", "Give a user a role", "  kvctl user grant-role alice readers", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return authDo(a, "grant a role to "+args[0], func(ctx context.Context, c pb.AuthClient) (*pb.AuthUserGrantRoleResponse, error) {
			return c.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: args[0], Role: args[1]})
		}, said[*pb.AuthUserGrantRoleResponse]("Role %s is granted to user %s", args[1], args[0]))(ctx)
	})
	revoke := verb("revoke-role NAME ROLE", "Take a role from a user", "  kvctl user revoke-role alice readers", cobra.ExactArgs(2), func(ctx context.Context, args []string) error {
		return authDo(a, "revoke a role of "+args[0], func(ctx context.Context, c pb.AuthClient) (*pb.AuthUserRevokeRoleResponse, error) {
			return c.UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: args[0], Role: args[1]})
		}, said[*pb.AuthUserRevokeRoleResponse]("Role %s is revoked from user %s", args[1], args[0]))(ctx)
	})
	return family("user", "Users", a.userAdd(), get, list, remove, passwd, grant, revoke)
}

func lines(w io.Writer, list []string) {
	for _, s := range list {
		fmt.Fprintln(w, s)
	}
}

func (a *app) userGet(ctx context.Context, name string, detail bool) error {
	var roles []string
	err := authDo(a, "look at user "+name, func(ctx context.Context, c pb.AuthClient) (*pb.AuthUserGetResponse, error) {
		return c.UserGet(ctx, &pb.AuthUserGetRequest{Name: name})
	}, func(w io.Writer, r *pb.AuthUserGetResponse) {
		roles = r.Roles
		fmt.Fprintf(w, "User: %s\nRoles:", name)
		for _, role := range roles {
			fmt.Fprintf(w, " %s", role)
		}
		fmt.Fprintln(w)
	})(ctx)
	for _, role := range roles {
		if err != nil || !detail {
			break
		}
		fmt.Fprintln(a.out)
		err = a.roleGet(ctx, role)
	}
	return err
}

func (a *app) roleCommand() *cobra.Command {
	add := verb("add NAME", "Make a role", "  kvctl role add readers", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return authDo(a, "add role "+args[0], func(ctx context.Context, c pb.AuthClient) (*pb.AuthRoleAddResponse, error) {
			return c.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: args[0]})
		}, said[*pb.AuthRoleAddResponse]("Role %s created", args[0]))(ctx)
	})
	get := verb("get NAME", "Show what a role permits", "  kvctl role get readers", cobra.ExactArgs(1),
		func(ctx context.Context, args []string) error { return a.roleGet(ctx, args[0]) })
	list := verb("list", "Show all roles", "  kvctl role list", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		return authDo(a, "list the roles", func(ctx context.Context, c pb.AuthClient) (*pb.AuthRoleListResponse, error) {
			return c.RoleList(ctx, &pb.AuthRoleListRequest{})
		}, func(w io.Writer, r *pb.AuthRoleListResponse) { lines(w, r.Roles) })(ctx)
	})
	remove := verb("delete NAME", "Delete a role", "  kvctl role delete readers", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		return authDo(a, "delete role "+args[0], func(ctx context.Context, c pb.AuthClient) (*pb.AuthRoleDeleteResponse, error) {
			return c.RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: args[0]})
		}, said[*pb.AuthRoleDeleteResponse]("Role %s deleted", args[0]))(ctx)
	})
	return family("role", "Roles: what users may do", add, get, list, remove, a.roleGrant(), a.roleRevoke())
}

func (a *app) roleGrant() *cobra.Command {
	var s span
	c := verb("grant-permission NAME read|write|readwrite KEY [END]", "Permit a role to use keys",
		"  kvctl role grant-permission readers read /config/ --prefix", cobra.RangeArgs(3, 4), func(ctx context.Context, args []string) error {
			kind, err := enum[authpb.Permission_Type]("permission", args[1], authpb.Permission_Type_value)
			if err != nil {
				return err
			}
			key, end, err := s.of(args[2:])
			if err != nil {
				return err
			}
			return authDo(a, "grant a permission to role "+args[0], func(ctx context.Context, c pb.AuthClient) (*pb.AuthRoleGrantPermissionResponse, error) {
				return c.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{
					Name: args[0], Perm: &authpb.Permission{PermType: kind, Key: key, RangeEnd: end},
				})
			}, said[*pb.AuthRoleGrantPermissionResponse]("Role %s updated", args[0]))(ctx)
		})
	s.define(c)
	return c
}

func (a *app) roleRevoke() *cobra.Command {
	var s span
	c := verb("revoke-permission NAME KEY [END]", "Take a permission back", "  kvctl role revoke-permission readers /config/ --prefix", cobra.RangeArgs(2, 3),
		func(ctx context.Context, args []string) error {
			key, end, err := s.of(args[1:])
			if err != nil {
				return err
			}
			return authDo(a, "revoke a permission of role "+args[0], func(ctx context.Context, c pb.AuthClient) (*pb.AuthRoleRevokePermissionResponse, error) {
				return c.RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: args[0], Key: key, RangeEnd: end})
			}, said[*pb.AuthRoleRevokePermissionResponse]("Permission of %s is revoked from role %s", interval(key, end), args[0]))(ctx)
		})
	s.define(c)
	return c
}

// interval names a range as etcdctl does.
func interval(key, end []byte) string {
	switch {
	case len(end) == 0:
		return "key " + string(key)
	case string(end) == "\x00":
		return fmt.Sprintf("range [%s, <open ended>", key)
	}
	return fmt.Sprintf("range [%s, %s)", key, end)
}

func (a *app) roleGet(ctx context.Context, name string) error {
	return authDo(a, "look at role "+name, func(ctx context.Context, c pb.AuthClient) (*pb.AuthRoleGetResponse, error) {
		return c.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: name})
	}, func(w io.Writer, r *pb.AuthRoleGetResponse) {
		fmt.Fprintf(w, "Role %s\n", name)
		for _, part := range []struct {
			title string
			kind  authpb.Permission_Type
		}{{"KV Read:", authpb.Permission_READ}, {"KV Write:", authpb.Permission_WRITE}} {
			fmt.Fprintln(w, part.title)
			if name == "root" && len(r.Perm) == 0 {
				fmt.Fprintln(w, "\t[, <open ended>")
			}
			for _, p := range r.Perm {
				if p.PermType == part.kind || p.PermType == authpb.Permission_READWRITE {
					fmt.Fprintln(w, "\t"+permitted(p))
				}
			}
		}
	})(ctx)
}

func permitted(p *authpb.Permission) string {
	if len(p.RangeEnd) == 0 {
		return string(p.Key)
	}
	s := strings.TrimPrefix(interval(p.Key, p.RangeEnd), "range ")
	if len(p.Key) > 0 && slices.Equal(prefixEnd(p.Key), p.RangeEnd) {
		s += fmt.Sprintf(" (prefix %s)", p.Key)
	}
	return s
}
