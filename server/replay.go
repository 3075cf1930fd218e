package server

import (
	"fmt"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/raft"
)

// Replay reads a log from its first entry on, for who judges what members did with
// it: it follows users and roles, and so knows which commands were refused for
// their rights. A command that came too late for a change of users is in the log
// twice: refused, and proposed again in the name that counts since.
//
// It does not know which keys a lease has: who may use a lease that is attached
// to keys is not told.
type Replay struct{ state *auth.State }

// NewReplay begins before the first entry.
func NewReplay() *Replay { return &Replay{auth.Empty()} }

// Read tells what the next command asks for, and why it was refused, if it was
// for its caller's rights.
func (r *Replay) Read(c *raft.Command) (l Logged, refused error, err error) {
	if l, err = ReadCommand(c); err != nil {
		return l, nil, err
	}
	g := guard{state: r.state, leaseKeys: func(api.LeaseID) [][]byte { return nil }}
	if r.state.Enabled {
		g.who = auth.ParsePrincipal(c.Principal)
	}
	if refused = g.admitCommand(c.Kind); refused != nil {
		return l, refused, nil
	}
	switch commandNeeds[c.Kind] {
	case needKeys:
		var does interface {
			accessor
			decode([]byte) error
		}
		switch c.Kind {
		case commandPut:
			does = &putRequest{}
		case commandDelete:
			does = &deleteRequest{}
		case commandTxn:
			does = &txnRequest{}
		default:
			return l, nil, fmt.Errorf("command of kind %d does something with keys, but what", c.Kind)
		}
		if err := does.decode(c.Body); err != nil {
			return l, nil, err
		}
		refused = g.check(does)
	case needLease:
		refused = g.check(leaseAccess{useLease, 0})
	case needRoot, byMember: // the latter may be the secret
		if next, _, err := changeOf(r.state, c.Kind, c.Body); err == nil {
			r.state = next
		}
	}
	return l, refused, nil
}
