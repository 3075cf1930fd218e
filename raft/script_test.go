package raft

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
)

// script drives whole members by hand, one step of one goroutine at a time, and
// writes down what they do: which messages leave, what is handed to the append
// and apply goroutines, what the disk does, what callers are told. The files in
// testdata are to be read; `go test ./raft -run Transcripts -rewrite` makes them
// anew after a change.
//
//	new N [leader=M] [keep=B]  a new cluster of N members, stepped until quiet;
//	                           B bytes of log are kept for followers that lag
//	campaign M                 M's campaign timer runs out
//	gather M                   M's gather timer runs out
//	tick M [n]                 time passes for M
//	propose M body…            callers on M propose; x*9 is a body of nine x
//	remove M X                 a caller on M proposes to remove X
//	read M                     a reader on M asks for a barrier
//	write M                    M's append goroutine takes what waits
//	apply M                    M's apply goroutine takes what waits
//	deliver A B [drop|twice]   what A has sent to B arrives, or does not
//	cut M, heal                what M sends, and what is sent to it, is lost
//	settle                     all of it, until nobody has anything to do
//	up A B, down A B           A's transport says so of B
//	transfer M                 M hands leadership over
//	flush M                    M's state becomes durable; its log may go
//	crash M, start M           the power fails; what was not synced is gone
//	status                     everybody's view
//
// Commands may stand on several lines; what they print stands below the line. One
// that ends with "quietly" prints nothing.
type script struct {
	t       *testing.T
	out     strings.Builder
	quiet   bool
	keep    int64
	ids     []api.MemberID
	members map[api.MemberID]*scripted
	links   map[[2]api.MemberID][]parcel
	cut     api.MemberID // 0: nobody
}

// parcel is something on its way from one member to another.
type parcel struct {
	text string
	call func(h handler)
	lost func() // tells the sender; may be nil
}

// scripted is a member; its node is nil while it is down.
type scripted struct {
	s       *script
	id      api.MemberID
	disk    *vfs.Mem
	node    *Node
	toy     *toy
	in      inboxItems
	waiting []*Command
	reads   []*readBatch
	lives   uint64 // how often it was started
}

func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		cryptotest.SetGlobalRandom(t, 1) // the library's election jitter
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			s.out.Reset()
			line := []string{d.Cmd}
			for _, arg := range d.CmdArgs {
				line = append(line, arg.String())
			}
			s.step(line)
			for more := range strings.Lines(d.Input) {
				s.step(strings.Fields(more))
			}
			if s.out.Len() == 0 {
				return "ok\n"
			}
			return s.out.String()
		})
	})
}

// TestRefusedSnapshotsPause: a member that does not take the state it lacks, with
// its disk full, say, is not sent it after each heartbeat.
func TestRefusedSnapshotsPause(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	s := &script{t: t}
	do := func(line string) { s.step(strings.Fields(line + " quietly")) }
	do("new 3 leader=1 keep=512")
	do("cut 3")
	for range 3 {
		do("propose 1 x*9000")
		do("settle")
	}
	do("flush 1")
	do("write 1")
	do("heal")
	link := [2]api.MemberID{1, 3}
	var sent []uint64 // the ticks at which a snapshot left
	pass := func(ticks int) {
		for range ticks {
			do("tick 1")
			do("tick 2")
			for range 6 { // a probe, its refusal, a snapshot
				if parcels := s.links[link]; len(parcels) > 0 && parcels[len(parcels)-1].lost != nil {
					sent = append(sent, s.members[1].node.core.now)
					do("deliver 1 3 drop")
				}
				do("deliver 1 3")
				do("write 3")
				do("deliver 3 1")
				do("deliver 1 2")
				do("write 2")
				do("deliver 2 1")
			}
		}
	}
	pass(600)
	for i := 3; i < len(sent); i++ {
		if gap, before := sent[i]-sent[i-1], sent[i-1]-sent[i-2]; gap < before || gap > 16*10+5 {
			t.Errorf("snapshots left at %v", sent)
			break
		}
	}
	if len(sent) < 7 || len(sent) > 12 {
		t.Errorf("snapshots left at %v", sent)
	}
	// When the member comes back, it gets one at once.
	do("up 1 3")
	n := len(sent)
	if pass(3); len(sent) != n+1 {
		t.Errorf("it came up after %v; then %v", sent[:n], sent[n:])
	}
}

func (s *script) printf(format string, args ...any) {
	if !s.quiet {
		fmt.Fprintf(&s.out, format+"\n", args...)
	}
}

func (s *script) number(arg string) int {
	n, err := strconv.Atoi(arg)
	if err != nil {
		s.t.Fatalf("%q is no number", arg)
	}
	return n
}

func (s *script) member(arg string) *scripted {
	m := s.members[api.MemberID(s.number(arg))]
	if m == nil {
		s.t.Fatalf("no member %q", arg)
	}
	return m
}

// step carries out one line.
func (s *script) step(line []string) {
	if last := len(line) - 1; line[last] == "quietly" {
		line = line[:last]
		s.quiet = true
		defer func() { s.quiet = false }()
	}
	args := line[1:]
	switch line[0] {
	case "new":
		s.begin(args)
	case "settle":
		s.settle()
	case "status":
		s.status()
	case "cut":
		s.cut = s.member(args[0]).id
	case "heal":
		s.cut = 0
	case "deliver":
		s.deliver(s.member(args[0]).id, s.member(args[1]).id, append(args, "")[2])
	case "start":
		s.member(args[0]).start()
		s.member(args[0]).turn()
	case "crash":
		s.member(args[0]).crash()
	default:
		m := s.member(args[0])
		if m.node == nil {
			s.t.Fatalf("member %s is down", m.id)
		}
		m.event(line[0], args[1:])
	}
}

// event is something that happens to a running member.
func (m *scripted) event(what string, args []string) {
	n := m.node
	switch what {
	case "campaign":
		n.core.campaignDue()
	case "gather":
		n.core.gatherDue()
	case "tick":
		for range m.s.number(append(args, "1")[0]) {
			n.tick()
			m.turn()
		}
	case "propose":
		for _, body := range args {
			if text, times, ok := strings.Cut(body, "*"); ok {
				body = strings.Repeat(text, m.s.number(times))
			}
			c := &Command{Kind: 1, Body: []byte(body), born: n.ticks.Load(), done: make(chan error, 1)}
			if err := n.inbox.propose(c); err != nil {
				m.s.t.Fatal(err)
			}
			m.waiting = append(m.waiting, c)
		}
	case "remove":
		c := confCommand(ConfRemove, m.s.member(args[0]).id, nil)
		c.born, c.done = n.ticks.Load(), make(chan error, 1)
		if err := n.inbox.propose(c); err != nil {
			m.s.t.Fatal(err)
		}
		m.waiting = append(m.waiting, c)
	case "read":
		b, err := n.inbox.join(n.ticks.Load(), nil)
		if err != nil {
			m.s.t.Fatal(err)
		}
		m.reads = append(m.reads, b)
	case "write":
		m.write()
	case "apply":
		m.apply()
	case "up":
		handler{n}.PeerUp(m.s.member(args[0]).id)
	case "down":
		handler{n}.PeerDown(m.s.member(args[0]).id)
	case "transfer":
		if !n.core.transfer(0) {
			m.s.printf("%s: there is nobody to lead", m.id)
		}
	case "flush":
		m.toy.Flush()
		n.retain()
	default:
		m.s.t.Fatalf("no command %q", what)
	}
	m.turn()
}

// begin makes a cluster.
func (s *script) begin(args []string) {
	s.members, s.links, s.ids = map[api.MemberID]*scripted{}, map[[2]api.MemberID][]parcel{}, nil
	s.cut, s.keep, s.quiet = 0, 1<<20, true
	for i := range s.number(args[0]) {
		id := api.MemberID(i + 1)
		s.ids = append(s.ids, id)
		s.members[id] = &scripted{s: s, id: id, disk: vfs.NewMem(uint64(id))}
	}
	var leader *scripted
	for _, arg := range args[1:] {
		switch name, value, _ := strings.Cut(arg, "="); name {
		case "leader":
			leader = s.member(value)
		case "keep":
			s.keep = int64(s.number(value))
		}
	}
	for _, id := range s.ids {
		s.members[id].start()
		s.members[id].turn()
	}
	for _, id := range s.ids {
		for _, other := range s.ids {
			if other != id {
				s.members[id].event("up", []string{other.String()})
			}
		}
	}
	s.settle()
	if leader != nil {
		leader.event("campaign", nil)
		s.settle()
	}
	s.quiet = false
}

// settle lets everything happen that is due, in a fixed order.
func (s *script) settle() {
	for busy := true; busy; {
		busy = false
		for _, id := range s.ids {
			m := s.members[id]
			if m.node == nil {
				continue
			}
			if len(m.node.append.tasks.mu.items) > 0 {
				m.write()
				busy = true
			}
			if len(m.node.applies.mu.items) > 0 {
				m.apply()
				busy = true
			}
			m.turn()
			for _, to := range s.ids {
				if len(s.links[[2]api.MemberID{id, to}]) > 0 {
					s.deliver(id, to, "")
					busy = true
				}
			}
		}
	}
}

func (s *script) deliver(from, to api.MemberID, how string) {
	link := [2]api.MemberID{from, to}
	parcels := s.links[link]
	delete(s.links, link)
	m := s.members[to]
	copies := 1
	switch {
	case how == "drop" || m.node == nil:
		copies = 0
	case how == "twice":
		copies = 2
	}
	for _, p := range parcels {
		verb := [...]string{"is lost", "arrives", "arrives twice"}[copies]
		s.printf("%s>%s %s: %s", from, to, verb, p.text)
	}
	if copies == 0 {
		for _, p := range parcels {
			p.giveUp()
		}
		return
	}
	for range copies {
		for _, p := range parcels {
			p.call(handler{m.node})
		}
	}
	m.turn()
}

func (p parcel) giveUp() {
	if p.lost != nil {
		p.lost()
	}
}

func (s *script) status() {
	for _, id := range s.ids {
		m := s.members[id]
		if m.node == nil {
			s.printf("%s: down", id)
			continue
		}
		st := m.node.Status()
		s.printf("%s: %s of term %d, leader %s, log %d-%d, committed %d, applied %d [%s]",
			id, st.Role, st.Term, st.Leader, st.First, st.Last, st.Committed, st.Applied, shorten(strings.Join(m.toy.list(), " ")))
	}
}

// segment is the size of the log's files: small when a script is about what
// happens to old ones.
func (s *script) segment() int64 {
	if s.keep < 1<<20 {
		return 8 << 10
	}
	return 1 << 20
}

func (m *scripted) start() {
	s := m.s
	if err := errors.Join(m.disk.MkdirAll("wal", 0o700), m.disk.MkdirAll("snap", 0o700)); err != nil {
		s.t.Fatal(err)
	}
	m.in = inboxItems{}
	m.lives++
	m.toy = newToy(m.disk, 0)
	var peers []Peer
	for _, id := range s.ids {
		peers = append(peers, Peer{ID: id})
	}
	node, err := Open(Config{
		ID: m.id, Cluster: 7, Peers: peers, Bootstrap: true,
		FS: vfs.NewFault(m.disk, vfs.Rule{Hook: m.diskCall}), Dir: "wal", SnapDir: "snap",
		Clock: clock.NewFake(time.Unix(0, 0)), Rand: rand.NewPCG(uint64(m.id), m.lives), Transport: scriptTransport{m},
		StateMachine: m.toy, TickInterval: 100 * time.Millisecond, RequestTimeout: 5 * time.Second,
		LogRetention: s.keep, SegmentSize: s.segment(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	m.node = node
	st, hard := node.Status(), node.wal.HardState()
	s.printf("%s: starts with log %d-%d, term %d, vote %s, committed %d, applied %d",
		m.id, st.First, st.Last, hard.Term, hard.Vote, st.Committed, st.Applied)
}

// crash fails the power: only what was synced is left, and nothing on its way.
func (m *scripted) crash() {
	m.node, m.disk = nil, m.disk.DurableClone()
	m.waiting, m.reads = nil, nil
	for link := range m.s.links {
		if link[0] == m.id || link[1] == m.id {
			delete(m.s.links, link)
		}
	}
}

// diskCall writes down what a running member does to its log.
func (m *scripted) diskCall(c vfs.Call) {
	if m.node == nil {
		return
	}
	switch c.Op {
	case vfs.OpWrite, vfs.OpSync, vfs.OpRename, vfs.OpSyncDir, vfs.OpRemove:
		m.s.printf("%s: disk: %s %s", m.id, c.Op, strings.TrimLeft(strings.TrimPrefix(c.Name, "wal/"), "0"))
	}
}

// turn is the loop goroutine's: it prints what it hands out.
func (m *scripted) turn() {
	appends, applies := len(m.node.append.tasks.mu.items), len(m.node.applies.mu.items)
	t := m.node.turn(&m.in)
	m.node.work.Wait()
	checkReads(m.s.t, m.node)
	if t.campaign > 0 {
		m.s.printf("%s: will campaign in %v", m.id, t.campaign.Round(time.Millisecond))
	}
	if t.campaign < 0 {
		m.s.printf("%s: will not campaign", m.id)
	}
	if t.gather > 0 {
		m.s.printf("%s: gathers more for the next frame", m.id)
	}
	for _, task := range m.node.append.tasks.mu.items[appends:] {
		m.s.printf("%s: to append: %s", m.id, describeTask(task))
	}
	for _, w := range m.node.applies.mu.items[applies:] {
		m.s.printf("%s: to apply: %s", m.id, describeEntries(w.msg.GetEntries()))
	}
	m.look()
}

// write is the append goroutine's turn. It waits for apply only to install a
// snapshot.
func (m *scripted) write() {
	select {
	case <-m.node.applies.wake: // of work that is applied later
	default:
	}
	done := make(chan error, 1)
	tasks := m.node.append.tasks.take(nil)
	go func() { done <- m.node.append.process(context.Background(), tasks) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				m.s.t.Fatal(err)
			}
			return
		case <-m.node.applies.wake:
			m.apply()
		}
	}
}

func (m *scripted) apply() {
	work := m.node.applies.take(nil)
	for _, w := range work {
		if w.install != nil {
			m.s.printf("%s: installs the state of %d/%d", m.id, w.install.meta.Index, w.install.meta.Term)
		}
	}
	if err := m.node.apply.process(work); err != nil {
		m.s.t.Fatal(err)
	}
}

// look prints what callers have been told.
func (m *scripted) look() {
	left := m.waiting[:0]
	for _, c := range m.waiting {
		select {
		case err := <-c.done:
			if err != nil {
				m.s.printf("%s: %s ends: %v", m.id, c.Body, err)
			} else {
				m.s.printf("%s: %s is acknowledged", m.id, c.Body)
			}
		default:
			left = append(left, c)
		}
	}
	m.waiting = left
	reads := m.reads[:0]
	for _, r := range m.reads {
		select {
		case <-r.done:
			m.s.printf("%s: the barrier ends with %d applied", m.id, m.node.Status().Applied)
			if r.err != nil {
				m.s.printf("%s: … %v", m.id, r.err)
			}
		default:
			reads = append(reads, r)
		}
	}
	m.reads = reads
}
