package auth

import (
	"strconv"
	"strings"

	"github.com/keelson-io/keelson/api"
)

// Principal is who asks: a user's name and the auth revision at which the name
// was established. The zero Principal is nobody.
type Principal struct {
	Name     string
	Revision uint64 // 0: nobody; never 0 in a State
}

// Known reports whether somebody is there. A client certificate may name a user
// of the empty name, who has no rights but is not nobody.
func (p Principal) Known() bool { return p.Revision != 0 }

// String is the form in which a principal travels in the log; empty for nobody.
func (p Principal) String() string {
	if !p.Known() {
		return ""
	}
	return strconv.FormatUint(p.Revision, 10) + " " + p.Name
}

// ParsePrincipal reads what String wrote. Anything else is nobody: a command
// that carries it has no rights.
func ParsePrincipal(s string) Principal {
	rev, name, ok := strings.Cut(s, " ")
	n, err := strconv.ParseUint(rev, 10, 64)
	if !ok || err != nil {
		return Principal{}
	}
	return Principal{Name: name, Revision: n}
}

// The four questions below are etcd's checks, in its order: it decides which
// error a client sees. All of them say yes while authentication is off.

// MayRead says whether p may read all keys of the range.
func (s *State) MayRead(p Principal, key, end []byte) error { return s.may(p, key, end, false) }

// MayWrite says whether p may write or delete all keys of the range.
func (s *State) MayWrite(p Principal, key, end []byte) error { return s.may(p, key, end, true) }

func (s *State) may(p Principal, key, end []byte, write bool) error {
	switch {
	case !s.Enabled:
		return nil
	case !p.Known():
		return api.ErrUserEmpty
	case p.Revision < s.Revision:
		return api.ErrAuthOldRevision
	}
	u := s.users[p.Name]
	if u == nil {
		return api.ErrPermissionDenied
	}
	if u.root {
		return nil
	}
	list := u.read
	if write {
		list = u.write
	}
	if !list.cover(spanOf(key, end)) {
		return api.ErrPermissionDenied
	}
	return nil
}

// MayAdminister says whether p has the role root. As in etcd it does not ask for
// the auth revision: an administrator can make several changes in a row with a
// token of before the first.
func (s *State) MayAdminister(p Principal) error {
	if !s.Enabled {
		return nil
	}
	if p.Name == "" {
		return api.ErrUserEmpty
	}
	switch u := s.users[p.Name]; {
	case u == nil:
		return api.ErrUserNotFound
	case !u.root:
		return api.ErrPermissionDenied
	}
	return nil
}

// MustBeKnown says whether p is anybody.
func (s *State) MustBeKnown(p Principal) error {
	if s.Enabled && !p.Known() {
		return api.ErrUserEmpty
	}
	return nil
}

// Fresh reports whether what was decided for p still stands.
func (s *State) Fresh(p Principal) error {
	if p.Known() && p.Revision != s.Revision {
		return api.ErrAuthOldRevision
	}
	return nil
}
