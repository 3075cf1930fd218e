package auth

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"

	"github.com/keelson-io/keelson/mvcc/engine"
)

// The user and the role that administer.
const (
	rootUser = "root"
	rootRole = "root"
)

// The rows of bucket auth. The first two are etcd's. The third is ours; etcd
// leaves it alone.
const (
	rowEnabled  = "authEnabled"        // one byte, 0 or 1
	rowRevision = "authRevision"       // 8 bytes, big-endian
	rowSecret   = "keelsonTokenSecret" // what simple tokens are verified by
)

// firstRevision is the auth revision of a store that knows no user.
const firstRevision = 1

// State is what is known about users, roles and permissions at one moment. It
// never changes: changes make a new one.
type State struct {
	Enabled  bool
	Revision uint64 // never 0

	secret []byte // of simple tokens; nil before the first login
	users  map[string]*user
	roles  map[string]*authpb.Role
}

// user is a stored user and what its roles make of it.
type user struct {
	row         *authpb.User
	root        bool
	read, write spans
}

// Empty is the state of a new store.
func Empty() *State {
	return &State{Revision: firstRevision, users: map[string]*user{}, roles: map[string]*authpb.Role{}}
}

// Load reads the state from a store's rows. raw calls fn for each row of a
// bucket; the slices are valid until fn returns.
func Load(raw func(b engine.Bucket, fn func(k, v []byte) bool)) (*State, error) {
	s := Empty()
	var err error
	raw(engine.Auth, func(k, v []byte) bool {
		switch string(k) {
		case rowEnabled:
			s.Enabled = len(v) == 1 && v[0] == 1
		case rowRevision:
			if len(v) != 8 {
				err = fmt.Errorf("the store's row %s has %d bytes, want 8", rowRevision, len(v))
				return false
			}
			s.Revision = max(binary.BigEndian.Uint64(v), firstRevision)
		case rowSecret:
			s.secret = bytes.Clone(v)
		}
		return true
	})
	each := func(b engine.Bucket, m func() proto.Message, keep func(proto.Message)) {
		raw(b, func(k, v []byte) bool {
			row := m()
			if e := proto.Unmarshal(v, row); e != nil {
				err = fmt.Errorf("bucket %s, row %q: %w", b, k, e)
				return false
			}
			keep(row)
			return true
		})
	}
	each(engine.AuthRoles, func() proto.Message { return &authpb.Role{} }, func(m proto.Message) {
		role := m.(*authpb.Role)
		s.roles[string(role.Name)] = role
	})
	each(engine.AuthUsers, func() proto.Message { return &authpb.User{} }, func(m proto.Message) {
		s.setUser(m.(*authpb.User))
	})
	return s, err
}

// setUser fills in what follows from the user's row and the roles of s.
func (s *State) setUser(row *authpb.User) {
	u := &user{row: row}
	_, u.root = slices.BinarySearch(row.Roles, rootRole)
	var roles []*authpb.Role
	for _, name := range row.Roles {
		if r := s.roles[name]; r != nil {
			roles = append(roles, r)
		}
	}
	u.read, u.write = permitted(roles)
	s.users[string(row.Name)] = u
}

// Secret is what simple tokens are made by; nil if there is none yet.
func (s *State) Secret() []byte { return s.secret }

// Password returns a user's bcrypt hash; false when there is no such user. open
// says that the user has a password at all.
func (s *State) Password(name string) (hash []byte, open, ok bool) {
	u := s.users[name]
	if u == nil {
		return nil, false, false
	}
	return u.row.Password, !u.row.GetOptions().GetNoPassword(), true
}

// Users lists the names of all users in byte order.
func (s *State) Users() []string { return slices.Sorted(maps.Keys(s.users)) }

// Roles lists the names of all roles in byte order.
func (s *State) Roles() []string { return slices.Sorted(maps.Keys(s.roles)) }

// RolesOf lists a user's roles; false when there is no such user.
func (s *State) RolesOf(name string) ([]string, bool) {
	u := s.users[name]
	if u == nil {
		return nil, false
	}
	return u.row.Roles, true
}

// HasRole reports whether the user has the role.
func (s *State) HasRole(name, role string) bool {
	u := s.users[name]
	return u != nil && slices.Contains(u.row.Roles, role)
}

// everything is what the role root permits, whatever is stored for it.
var everything = []*authpb.Permission{{PermType: authpb.Permission_READWRITE, Key: []byte{}, RangeEnd: []byte{0}}}

// Permissions lists a role's permissions; false when there is no such role. The
// caller does not change them.
func (s *State) Permissions(role string) ([]*authpb.Permission, bool) {
	r := s.roles[role]
	switch {
	case r == nil:
		return nil, false
	case role == rootRole:
		return everything, true
	}
	return r.KeyPermission, true
}
