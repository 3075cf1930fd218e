package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// maxName bounds the names of users and roles: they are keys of the database,
// whose own bound is 32 KiB. etcd would end at a longer one.
const maxName = 16 << 10

// draft is a state under construction, with the rows that bring it to disk.
type draft struct {
	*State
	rows []engine.Op
}

// next begins the state after s. Users and roles are shared until replaced.
func (s *State) next() *draft {
	n := *s
	n.users, n.roles = maps.Clone(s.users), maps.Clone(s.roles)
	return &draft{State: &n}
}

// done counts the change and ends the construction.
func (d *draft) done() (*State, []engine.Op, error) {
	d.Revision++
	d.putRevision()
	return d.State, d.rows, nil
}

func (d *draft) put(b engine.Bucket, key string, value []byte) {
	d.rows = append(d.rows, engine.Op{Bucket: b, Key: []byte(key), Value: value})
}

func (d *draft) drop(b engine.Bucket, key string) {
	d.rows = append(d.rows, engine.Op{Bucket: b, Key: []byte(key)})
}

func (d *draft) putRevision() {
	d.put(engine.Auth, rowRevision, binary.BigEndian.AppendUint64(nil, d.Revision))
}

// encode gives equal bytes on all members.
func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("auth: cannot encode a %T: %v", m, err)) // it was decoded from a request
	}
	return b
}

func (d *draft) putUser(row *authpb.User) {
	d.setUser(row)
	d.put(engine.AuthUsers, string(row.Name), encode(row))
}

// putRole stores a role; rights follow for the users who have it.
func (d *draft) putRole(row *authpb.Role) {
	d.roles[string(row.Name)] = row
	d.put(engine.AuthRoles, string(row.Name), encode(row))
	for _, u := range d.users {
		if slices.Contains(u.row.Roles, string(row.Name)) {
			d.setUser(u.row)
		}
	}
}

// Enable turns authentication on. secret is what simple tokens are made by from
// now on, drawn by the member that proposed this.
func (s *State) Enable(secret []byte) (*State, []engine.Op, error) {
	if s.Enabled {
		return s, nil, nil
	}
	root := s.users[rootUser]
	switch {
	case root == nil:
		return nil, nil, api.ErrRootUserNotExist
	case !root.root:
		return nil, nil, api.ErrRootRoleNotExist
	}
	d := s.next()
	d.Enabled, d.secret = true, secret
	d.put(engine.Auth, rowEnabled, []byte{1})
	d.put(engine.Auth, rowSecret, secret)
	d.putRevision() // etcd does not count this one
	return d.State, d.rows, nil
}

// Disable turns authentication off. Tokens given out so far never work again.
func (s *State) Disable() (*State, []engine.Op, error) {
	if !s.Enabled {
		return s, nil, nil
	}
	d := s.next()
	d.Enabled, d.secret = false, nil
	d.put(engine.Auth, rowEnabled, []byte{0})
	d.drop(engine.Auth, rowSecret)
	return d.done()
}

// Share gives the cluster its secret if it has none: after a snapshot of etcd's,
// which has no such row. It is no change of users or roles.
func (s *State) Share(secret []byte) (*State, []engine.Op, error) {
	if s.secret != nil || !s.Enabled {
		return s, nil, nil
	}
	d := s.next()
	d.secret = secret
	d.put(engine.Auth, rowSecret, secret)
	return d.State, d.rows, nil
}

// UserAdd adds a user. The request carries a hash; it is never made here.
func (s *State) UserAdd(r *pb.AuthUserAddRequest) (*State, []engine.Op, error) {
	switch {
	case r.Name == "":
		return nil, nil, api.ErrUserEmpty
	case len(r.Name) > maxName:
		return nil, nil, api.ErrRequestTooLarge
	case s.users[r.Name] != nil:
		return nil, nil, api.ErrUserExists
	}
	row := &authpb.User{Name: []byte(r.Name), Options: &authpb.UserAddOptions{NoPassword: r.GetOptions().GetNoPassword()}}
	if !row.Options.NoPassword {
		hash, err := base64.StdEncoding.DecodeString(r.HashedPassword)
		if err != nil {
			return nil, nil, api.ErrNoPasswordUser
		}
		row.Password = hash
	}
	d := s.next()
	d.putUser(row)
	return d.done()
}

// UserDelete deletes a user.
func (s *State) UserDelete(r *pb.AuthUserDeleteRequest) (*State, []engine.Op, error) {
	switch {
	case s.Enabled && r.Name == rootUser:
		return nil, nil, api.ErrInvalidAuthMgmt
	case s.users[r.Name] == nil:
		return nil, nil, api.ErrUserNotFound
	}
	d := s.next()
	delete(d.users, r.Name)
	d.drop(engine.AuthUsers, r.Name)
	return d.done()
}

// UserChangePassword replaces a user's hash. A user without password keeps none.
func (s *State) UserChangePassword(r *pb.AuthUserChangePasswordRequest) (*State, []engine.Op, error) {
	u := s.users[r.Name]
	if u == nil {
		return nil, nil, api.ErrUserNotFound
	}
	row := &authpb.User{Name: u.row.Name, Roles: u.row.Roles, Options: u.row.Options}
	if !u.row.GetOptions().GetNoPassword() {
		hash, err := base64.StdEncoding.DecodeString(r.HashedPassword)
		if err != nil {
			return nil, nil, api.ErrNoPasswordUser
		}
		row.Password = hash
	}
	d := s.next()
	d.putUser(row)
	return d.done()
}

// UserGrantRole gives a user a role. The role root need not be stored. A role
// that the user has already is no change.
func (s *State) UserGrantRole(r *pb.AuthUserGrantRoleRequest) (*State, []engine.Op, error) {
	u := s.users[r.User]
	switch {
	case u == nil:
		return nil, nil, api.ErrUserNotFound
	case r.Role != rootRole && s.roles[r.Role] == nil:
		return nil, nil, api.ErrRoleNotFound
	case slices.Contains(u.row.Roles, r.Role):
		return s, nil, nil
	}
	roles := append(slices.Clone(u.row.Roles), r.Role)
	slices.Sort(roles)
	d := s.next()
	d.putUser(withRoles(u.row, roles))
	return d.done()
}

func withRoles(row *authpb.User, roles []string) *authpb.User {
	return &authpb.User{Name: row.Name, Password: row.Password, Options: row.Options, Roles: roles}
}

func without(roles []string, role string) []string {
	var out []string
	for _, r := range roles {
		if r != role {
			out = append(out, r)
		}
	}
	return out
}

// UserRevokeRole takes a role from a user.
func (s *State) UserRevokeRole(r *pb.AuthUserRevokeRoleRequest) (*State, []engine.Op, error) {
	if s.Enabled && r.Name == rootUser && r.Role == rootRole {
		return nil, nil, api.ErrInvalidAuthMgmt
	}
	u := s.users[r.Name]
	switch {
	case u == nil:
		return nil, nil, api.ErrUserNotFound
	case !slices.Contains(u.row.Roles, r.Role):
		return nil, nil, api.ErrRoleNotGranted
	}
	d := s.next()
	d.putUser(withRoles(u.row, without(u.row.Roles, r.Role)))
	return d.done()
}

// RoleAdd adds a role without permissions.
func (s *State) RoleAdd(r *pb.AuthRoleAddRequest) (*State, []engine.Op, error) {
	switch {
	case r.Name == "":
		return nil, nil, api.ErrRoleEmpty
	case len(r.Name) > maxName:
		return nil, nil, api.ErrRequestTooLarge
	case s.roles[r.Name] != nil:
		return nil, nil, api.ErrRoleExists
	}
	d := s.next()
	d.putRole(&authpb.Role{Name: []byte(r.Name)})
	return d.done()
}

// RoleDelete deletes a role and takes it from all users.
func (s *State) RoleDelete(r *pb.AuthRoleDeleteRequest) (*State, []engine.Op, error) {
	switch {
	case s.Enabled && r.Role == rootRole:
		return nil, nil, api.ErrInvalidAuthMgmt
	case s.roles[r.Role] == nil:
		return nil, nil, api.ErrRoleNotFound
	}
	d := s.next()
	delete(d.roles, r.Role)
	d.drop(engine.AuthRoles, r.Role)
	for _, name := range s.Users() { // in order: the rows are equal on all members
		if u := s.users[name]; slices.Contains(u.row.Roles, r.Role) {
			d.putUser(withRoles(u.row, without(u.row.Roles, r.Role)))
		}
	}
	return d.done()
}

// byKey is etcd's order of a role's permissions. Its sort is not stable; the
// same sort is used here.
type byKey []*authpb.Permission

func (l byKey) Len() int           { return len(l) }
func (l byKey) Less(i, j int) bool { return bytes.Compare(l[i].Key, l[j].Key) < 0 }
func (l byKey) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }

// RoleGrantPermission adds a permission to a role. As in etcd it replaces the
// kind of one on the same range if that is the first at its key.
func (s *State) RoleGrantPermission(r *pb.AuthRoleGrantPermissionRequest) (*State, []engine.Op, error) {
	switch {
	case r.Perm == nil:
		return nil, nil, api.ErrPermissionNotGiven
	case !validRange(r.Perm.Key, r.Perm.RangeEnd):
		return nil, nil, api.ErrInvalidAuthMgmt
	}
	old := s.roles[r.Name]
	if old == nil {
		return nil, nil, api.ErrRoleNotFound
	}
	perm := &authpb.Permission{PermType: r.Perm.PermType, Key: r.Perm.Key, RangeEnd: r.Perm.RangeEnd}
	list := slices.Clone(old.KeyPermission)
	i := sort.Search(len(list), func(i int) bool { return bytes.Compare(list[i].Key, perm.Key) >= 0 })
	if i < len(list) && bytes.Equal(list[i].Key, perm.Key) && bytes.Equal(list[i].RangeEnd, perm.RangeEnd) {
		list[i] = perm
	} else {
		list = append(list, perm)
		sort.Sort(byKey(list))
	}
	d := s.next()
	d.putRole(&authpb.Role{Name: old.Name, KeyPermission: list})
	return d.done()
}

// RoleRevokePermission takes the permissions on exactly this range from a role.
func (s *State) RoleRevokePermission(r *pb.AuthRoleRevokePermissionRequest) (*State, []engine.Op, error) {
	old := s.roles[r.Role]
	if old == nil {
		return nil, nil, api.ErrRoleNotFound
	}
	list := slices.DeleteFunc(slices.Clone(old.KeyPermission), func(p *authpb.Permission) bool {
		return bytes.Equal(p.Key, r.Key) && bytes.Equal(p.RangeEnd, r.RangeEnd)
	})
	if len(list) == len(old.KeyPermission) {
		return nil, nil, api.ErrPermissionNotGranted
	}
	d := s.next()
	d.putRole(&authpb.Role{Name: old.Name, KeyPermission: list})
	return d.done()
}
