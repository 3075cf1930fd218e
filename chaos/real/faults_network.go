//go:build linux

package real

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

var networkFaults = []*Fault{
	{Name: "cut-minority", Row: 11, About: "one member is cut from all others and from clients", Inject: cutMinority},
	{Name: "cut-majority", Row: 11, About: "no two members reach each other", Inject: cutMajority},
	{Name: "cut-leader", Row: 12, About: "the leader is cut from its peers, not from clients", Inject: cutLeader},
	{Name: "deaf-leader", Row: 13, About: "the leader sends, but cannot hear", Inject: deafLeader},
	{Name: "mute-leader", Row: 13, About: "the leader hears, but cannot send", Inject: muteLeader},
	{Name: "bridge", Row: 14, About: "two members meet only through the third", Inject: bridge},
	{Name: "majorities", Row: 14, About: "five in a ring, each reaches its two neighbours", Members: 5, Inject: majorities},
	{Name: "swizzle", Row: 15, About: "links are cut one by one and healed in another order", Inject: swizzle},
	{Name: "loss", Row: 16, About: "30% of all packets between members are lost", Inject: loss},
	{Name: "burst-loss", Row: 16, About: "packets are lost in bursts, 10% of them", Inject: burstLoss},
	{Name: "delay", Row: 17, About: "75±50 ms between members, out of order", Inject: delay},
	{Name: "long-delay", Row: 17, About: "500 ms between members", Inject: longDelay},
	{Name: "duplicates", Row: 18, About: "half of all packets come twice", Inject: duplicates},
	{Name: "bad-checksums", Row: 18, About: "5% of all packets have a flipped bit, which TCP's checksum shows", Inject: damagedPackets},
	{Name: "thin-line", Row: 19, About: "1 Mbit/s to a member that gets the whole state", Times: 1, Long: true, Inject: thinLine},
	{Name: "resets", Row: 20, About: "connections to a member are reset", Inject: resets},
	{Name: "black-hole", Row: 20, About: "a member dies behind a cut: nobody is told that connections ended", Times: 2, Inject: blackHole},
	{Name: "clients-cut", Row: 21, About: "clients lose a member", Inject: clientsCut},
}

// peers are the addresses of all other members.
func (r *Run) peers(m *Member) (out []netip.Addr) {
	for _, o := range r.members() {
		if o != m {
			out = append(out, o.Addr)
		}
	}
	return out
}

// everywhere sets the links between all members.
func (r *Run) everywhere(l Link) {
	for _, m := range r.members() {
		for _, o := range r.peers(m) {
			r.net.Set(m.Addr, o, l)
		}
	}
}

// while lets a fault of the network go on for a time, demands that some packet has
// met it, and heals.
func (r *Run) while(d time.Duration, counted func() int64) error {
	time.Sleep(d)
	r.net.Heal()
	if counted() == 0 {
		return fmt.Errorf("%w: no packet met it", errNothing)
	}
	return nil
}

func (r *Run) lost() int64 { return r.net.Counts.Lost.Load() }

// serves demands that writes are acknowledged again, although a fault goes on.
func (r *Run) serves() error {
	before := r.load.writes.Load()
	err := within(patience, func() error {
		if r.load.writes.Load() < before+10 {
			return fmt.Errorf("O9: nobody is served, although a majority is together")
		}
		return nil
	})
	return err
}

func cutMinority(r *Run) error {
	m := r.some()
	for _, o := range r.peers(m) {
		r.net.SetBoth(m.Addr, o, Link{Cut: true})
	}
	r.net.SetBoth(m.Addr, r.clients, Link{Cut: true})
	if err := r.serves(); err != nil {
		return err
	}
	return r.while(r.between(r.Election, 3*r.Election), r.lost)
}

func cutMajority(r *Run) error {
	r.everywhere(Link{Cut: true})
	time.Sleep(200 * time.Millisecond) // answers that are on their way
	if err := r.nobodyServes(2 * r.Election); err != nil {
		return err
	}
	return r.while(100*time.Millisecond, r.lost)
}

// cutLeader demands that the old leader lets go.
func cutLeader(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	begin := r.now()
	for _, o := range r.peers(m) {
		r.net.SetBoth(m.Addr, o, Link{Cut: true})
	}
	err = within(patience, func() error {
		st, err := m.status()
		if err == nil && st.Leader == st.Header.MemberId {
			return fmt.Errorf("O9: %s leads still, %v after it was cut off", m.Name, r.now()-begin)
		}
		return err
	})
	if err != nil {
		return err
	}
	r.result.Measures = append(r.result.Measures, Measure{"old leader steps down", r.now() - begin})
	if err := r.serves(); err != nil {
		return err
	}
	return r.while(r.between(0, 2*r.Election), r.lost)
}

func deafLeader(r *Run) error { return r.oneWay(true) }
func muteLeader(r *Run) error { return r.oneWay(false) }

func (r *Run) oneWay(deaf bool) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	for _, o := range r.peers(m) {
		if deaf {
			r.net.Set(o, m.Addr, Link{Cut: true})
		} else {
			r.net.Set(m.Addr, o, Link{Cut: true})
		}
	}
	time.Sleep(r.Election)
	if err := r.serves(); err != nil {
		return err
	}
	return r.while(r.between(r.Election, 2*r.Election), r.lost)
}

// flaps is how many terms a fault may cost that leaves a majority together.
const flaps = 4

func bridge(r *Run) error {
	all := r.shuffled()
	r.net.SetBoth(all[0].Addr, all[1].Addr, Link{Cut: true})
	return r.steadily(flaps, r.lost)
}

func majorities(r *Run) error {
	all := r.shuffled()
	for i, m := range all {
		for j, o := range all {
			if d := (i - j + len(all)) % len(all); d > 1 && d < len(all)-1 {
				r.net.Set(m.Addr, o.Addr, Link{Cut: true})
			}
		}
	}
	return r.steadily(flaps, r.lost)
}

// steadily lets a fault go on under which a leader must be found and kept.
func (r *Run) steadily(most uint64, counted func() int64) error {
	before, err := r.term()
	if err != nil {
		return err
	}
	if err := r.serves(); err != nil {
		return err
	}
	if err := r.while(r.between(3*r.Election, 4*r.Election), counted); err != nil {
		return err
	}
	after, err := r.term()
	if err == nil && after > before+most {
		err = fmt.Errorf("O9: %d terms went by", after-before)
	}
	return err
}

// term is the newest that any member knows.
func (r *Run) term() (newest uint64, err error) {
	all, err := r.statuses()
	for _, st := range all {
		newest = max(newest, st.RaftTerm)
	}
	if newest > 0 {
		return newest, nil
	}
	return 0, err
}

func swizzle(r *Run) error {
	type pair struct{ a, b netip.Addr }
	var pairs []pair
	for _, m := range r.members() {
		for _, o := range r.peers(m) {
			pairs = append(pairs, pair{m.Addr, o})
		}
	}
	shuffle := func() { r.rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] }) }
	shuffle()
	for _, p := range pairs {
		r.net.Set(p.a, p.b, Link{Cut: true})
		r.pause(0, r.Election/2)
	}
	shuffle()
	for _, p := range pairs {
		r.net.Set(p.a, p.b, Link{})
		r.pause(0, r.Election/2)
	}
	if r.lost() == 0 {
		return errNothing
	}
	return nil
}

func loss(r *Run) error {
	r.everywhere(Link{Loss: 0.3})
	return r.while(r.between(2*time.Second, 3*time.Second), r.lost)
}

func burstLoss(r *Run) error {
	r.everywhere(Link{Burst: 0.005})
	return r.while(r.between(2*time.Second, 3*time.Second), r.lost)
}

func delay(r *Run) error {
	r.everywhere(Link{Delay: 25 * time.Millisecond, Jitter: 100 * time.Millisecond})
	return r.steadily(1, r.net.Counts.Delayed.Load)
}

func longDelay(r *Run) error {
	r.everywhere(Link{Delay: 500 * time.Millisecond})
	return r.while(r.between(2*time.Second, 3*time.Second), r.net.Counts.Delayed.Load)
}

func duplicates(r *Run) error {
	r.everywhere(Link{Duplicate: 0.5})
	return r.while(r.between(time.Second, 2*time.Second), r.net.Counts.Duplicated.Load)
}

func damagedPackets(r *Run) error {
	r.everywhere(Link{Damage: 0.05})
	return r.while(r.between(time.Second, 2*time.Second), r.net.Counts.Damaged.Load)
}

// thinState is how many values of 128 KiB the state has at least: some ten seconds
// of such a line.
const thinState = 8

const thinRate = 125_000 // bytes a second

// thinLine damages a follower's log, so that it needs everything, over a line that
// is too thin for it. Heartbeats must not starve: nobody else has a reason to vote.
// The state has all history in it, and grows from time to time.
func thinLine(r *Run) error {
	for i := range thinState {
		r.mine.big(i)
	}
	m, err := r.follower()
	if err != nil {
		return err
	}
	if err := m.kill("kill"); err != nil {
		return err
	}
	if err := m.flipLog(r.rand); err != nil {
		return err
	}
	before, err := r.term()
	if err != nil {
		return err
	}
	since := r.now()
	lead, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	st, err := lead.status()
	if err != nil {
		return err
	}
	for _, o := range r.peers(m) {
		r.net.SetBoth(m.Addr, o, Link{Rate: thinRate})
	}
	if err := m.start(); err != nil {
		return err
	}
	lines := len(m.lines())
	limit := patience + 2*time.Duration(st.DbSize/thinRate)*time.Second // half of the line is for the load
	err = within(limit, func() error {                                  // not until it has caught up: the load is as thick as the line
		if !mentions(m, lines, "repaired the stored data") {
			return fmt.Errorf("O9: %s did not get the state of %d bytes over 1 Mbit/s within %v", m.Name, st.DbSize, limit)
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, err := r.term()
	switch {
	case err == nil && after > before+1 && r.said(since, "the disk has stalled"):
		err = fmt.Errorf("%w: the machine was too busy for a leader's disk", errNothing)
	case err == nil && after > before+1:
		err = fmt.Errorf("O9: %d terms went by while a member caught up over 1 Mbit/s", after-before)
	}
	r.net.Heal()
	return err
}

// said reports that some member has logged a text since a time.
func (r *Run) said(since time.Duration, text string) bool {
	return slices.ContainsFunc(r.members(), func(m *Member) bool {
		return slices.ContainsFunc(m.lines(), func(l logLine) bool { return l.At >= since && strings.Contains(l.Text, text) })
	})
}

func resets(r *Run) error {
	m := r.some()
	for range 3 {
		for _, o := range append(r.peers(m), r.clients) {
			r.net.SetBoth(m.Addr, o, Link{Reset: true})
		}
		if err := r.while(r.between(100*time.Millisecond, r.Election), r.net.Counts.Reset.Load); err != nil {
			return err
		}
		r.pause(0, r.Election)
	}
	return nil
}

func blackHole(r *Run) error {
	m := r.some()
	for _, o := range append(r.peers(m), r.clients) {
		r.net.SetBoth(m.Addr, o, Link{Cut: true})
	}
	if err := m.kill("kill"); err != nil {
		return err
	}
	if err := r.serves(); err != nil {
		return err
	}
	return r.while(r.between(r.Election, 3*r.Election), r.lost)
}

func clientsCut(r *Run) error {
	r.net.SetBoth(r.some().Addr, r.clients, Link{Cut: true})
	if err := r.serves(); err != nil {
		return err
	}
	return r.while(r.between(time.Second, 3*time.Second), r.lost)
}
