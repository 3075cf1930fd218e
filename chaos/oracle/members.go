package oracle

import (
	"fmt"
	"maps"
	"slices"
)

// Roster is O6 for the membership: what the changes of the log make of it, judged
// one after the other by etcd's rules and by nobody else.
//
//   - a committed change is made or refused as the rules say;
//   - a removed member never comes back under its id;
//   - a change that was acknowledged is there at rest;
//   - at rest every member has exactly these rows.
type Roster struct {
	Members map[uint64]Rank
	Removed map[uint64]bool
	acked   []MemberChange
}

// Rank is what the cluster knows of one member.
type Rank struct {
	Learner bool
	URLs    []string
}

// MemberOp is a kind of change of the membership.
type MemberOp int

// The kinds.
const (
	AddMember MemberOp = iota
	AddLearner
	RemoveMember
	PromoteMember
)

// MemberChange is one change of the membership.
type MemberChange struct {
	Op          MemberOp
	ID          uint64
	URLs        []string
	MaxLearners int
}

// NewRoster knows nobody: a cluster's first members come as changes.
func NewRoster() *Roster {
	return &Roster{Members: map[uint64]Rank{}, Removed: map[uint64]bool{}}
}

// Applied notes a change of the log, and whether the members made it.
func (r *Roster) Applied(c MemberChange, made bool) error {
	if want := r.valid(c); want != made {
		return fmt.Errorf("the change %+v of the membership %v, without %v: made %v, by the rules %v", c, r.Members, r.Removed, made, want)
	}
	if !made {
		return nil
	}
	switch c.Op {
	case AddMember, AddLearner:
		r.Members[c.ID] = Rank{c.Op == AddLearner, c.URLs}
	case PromoteMember:
		r.Members[c.ID] = Rank{false, r.Members[c.ID].URLs}
	case RemoveMember:
		delete(r.Members, c.ID)
		r.Removed[c.ID] = true
	}
	return nil
}

func (r *Roster) valid(c MemberChange) bool {
	row, known := r.Members[c.ID]
	switch {
	case r.Removed[c.ID]:
		return false
	case c.Op == PromoteMember:
		return known && row.Learner
	case c.Op == RemoveMember:
		return known && (row.Learner || len(r.Voters()) > 1)
	}
	learners := len(r.Members) - len(r.Voters())
	return !known && !r.taken(c.URLs) && (c.Op == AddMember || learners < c.MaxLearners)
}

func (r *Roster) taken(urls []string) bool {
	for _, m := range r.Members {
		if slices.ContainsFunc(urls, func(u string) bool { return slices.Contains(m.URLs, u) }) {
			return true
		}
	}
	return false
}

// Voters are the members that decide.
func (r *Roster) Voters() (ids []uint64) {
	for _, id := range slices.Sorted(maps.Keys(r.Members)) {
		if !r.Members[id].Learner {
			ids = append(ids, id)
		}
	}
	return ids
}

// Acked notes a change that was acknowledged to whoever had asked for it.
func (r *Roster) Acked(c MemberChange) { r.acked = append(r.acked, c) }

// Check compares what a member knows at rest.
func (r *Roster) Check(id uint64, members map[uint64]bool, removed map[uint64]bool) []error {
	var f findings
	want := map[uint64]bool{}
	for m, rank := range r.Members {
		want[m] = rank.Learner
	}
	if !maps.Equal(want, members) {
		f.add("member %x knows the members (true: a learner) %v, the log makes %v", id, members, want)
	}
	if !maps.Equal(r.Removed, removed) {
		f.add("member %x knows %v as removed, the log %v", id, removed, r.Removed)
	}
	for _, c := range r.acked {
		row, there := r.Members[c.ID]
		gone := r.Removed[c.ID]
		if c.Op == RemoveMember && !gone || c.Op != RemoveMember && !there && !gone || c.Op == PromoteMember && row.Learner {
			f.add("the change %+v was acknowledged and is not there", c)
		}
	}
	return f
}
