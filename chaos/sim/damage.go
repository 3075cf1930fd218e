package sim

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

// mayBeDamaged is the budget: one damaged member at a time, and others that can
// mend it.
func (m *member) mayBeDamaged() bool {
	// One without its disk counts until it is removed and its process has ended: two
	// that have forgotten everything would take each other for a new cluster.
	hurt := func(o *member) bool {
		removed := o.s.roster.Removed[uint64(o.id)]
		return !removed && (o.damaged || o.rotten) || o.wiped && !(removed && o.left)
	}
	c := m.s.changes
	return len(m.s.roster.Voters()) >= 3 && c.inFlight == 0 && m.s.now >= c.settled &&
		m.node != nil && !m.repairing && m.belongs() && !slices.ContainsFunc(m.s.members, hurt)
}

// damage hurts the proven part of the member's log while its process is down.
func (m *member) damage(e fault.Event) {
	s := m.s
	if !m.mayBeDamaged() {
		return
	}
	m.down(m.disk.killed())
	s.after(e.For, m.revive)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.proven)) {
		if info, err := m.disk.files.Stat(name); err == nil && info.Size >= m.proven[name] && m.proven[name] > 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	r := s.chance.disk
	name := names[r.IntN(len(names))]
	at := r.Int64N(m.proven[name])
	hurt := []byte{byte(1 + r.IntN(255))}
	if e.Kind == fault.ZeroSector {
		at -= at % vfs.SectorSize
		hurt = make([]byte, min(vfs.SectorSize, m.proven[name]-at))
	}
	m.damaged = true
	s.must("O12", m.disk.files.Damage(name, at, hurt))
	s.say("%s: %d bytes of %s at %d damaged", m.name, len(hurt), name, at)
}

// rot flips a bit in the member's database while its process is down. It is found
// at the start, or when somebody reads the record, at the latest by scrub.
func (m *member) rot(e fault.Event) {
	s := m.s
	if !m.mayBeDamaged() {
		return
	}
	m.down(m.disk.killed())
	s.after(e.For, m.revive)
	content, err := readFile(m.disk.files, databasePath)
	db := m.disk.databases[string(content)]
	if err != nil || db == nil {
		return
	}
	db = db.Crash()
	err = m.disk.rename(string(content), db)
	if errors.Is(err, vfs.ErrNoSpace) {
		return // a full disk has none for the name either
	}
	if err != nil {
		s.fail("O12", "name a database: %v", err)
		return
	}
	if m.rotten = db.Damage(engine.Key, s.chance.disk.IntN); m.rotten {
		s.stats.Rotten++
		s.say("%s: a bit of the database has flipped", m.name)
	}
}

// deleteStore deletes the member's database while its process is down. The log has
// all of it, or the others must give it back.
func (m *member) deleteStore(d time.Duration) {
	if !m.mayBeDamaged() {
		return
	}
	m.down(m.disk.killed())
	m.s.after(d, m.revive)
	m.damaged = true
	m.s.stats.Deleted++
	m.s.must("O12", m.disk.files.Remove(databasePath))
	m.s.must("O12", m.disk.files.SyncDir("/data/member/snap"))
}

// scrub reads all that the members hold, as a comparison between members would. A
// member that finds damage stops and rebuilds its state.
func (s *Sim) scrub() {
	for _, m := range s.members {
		if m.rotten && m.node != nil && !m.repairing {
			if _, _, err := m.node.Store().HashKV(context.Background(), 0); errors.Is(err, mvcc.ErrCorrupt) {
				m.rebuild(err)
			} else if err == nil {
				m.rotten = false // the record has been compacted, or replaced by a snapshot
			}
		}
	}
}

// rebuild stops a member that has found damage in its state, unless it has not.
func (m *member) rebuild(err error) bool {
	if !m.rotten || !m.node.Rebuilds(err) {
		return false
	}
	m.s.say("%s stops to rebuild its state: %v", m.name, err)
	m.s.stats.Rebuilt++
	m.down(m.disk.killed())
	m.s.after(m.downTime(), m.revive)
	return true
}
