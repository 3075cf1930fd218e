package main

import (
	"encoding/binary"
	"time"

	"github.com/tetratelabs/wazero/sys"

	"github.com/keelson-io/keelson/chaos/wasm/wire"
)

// This file is what a guest needs of WASI, the system interface of WebAssembly, for
// Go's runtime: time, chance, waiting, output. Whatever answers the same for the
// same seed is deterministic, and nothing else is here.

// Errors of WASI.
const (
	success  = 0
	again    = 6
	badFile  = 8
	notKnown = 52
)

// calls are the functions of WASI that guests use, by name.
var calls = map[string]func(m *machine, stack []uint64){
	"args_sizes_get":    func(m *machine, s []uint64) { m.sizes(s, m.args) },
	"args_get":          func(m *machine, s []uint64) { m.strings(s, m.args) },
	"environ_sizes_get": func(m *machine, s []uint64) { m.sizes(s, m.environment()) },
	"environ_get":       func(m *machine, s []uint64) { m.strings(s, m.environment()) },
	"clock_time_get":    (*machine).clockTimeGet,
	"random_get":        (*machine).randomGet,
	"poll_oneoff":       (*machine).pollOneoff,
	"fd_write":          (*machine).fdWrite,
	"fd_read":           (*machine).fdRead,
	"fd_fdstat_get":     (*machine).fdstatGet,
	"fd_prestat_get":    func(_ *machine, s []uint64) { s[0] = badFile },
	"sched_yield":       func(_ *machine, s []uint64) { s[0] = success },
	"proc_exit":         func(_ *machine, s []uint64) { panic(sys.NewExitError(uint32(s[0]))) },
}

// lacks answers what is not there.
func (m *machine) lacks(s []uint64) { s[0] = notKnown }

// bytes is a part of the guest's memory, which reading and writing changes.
func (m *machine) bytes(at, n uint64) []byte {
	b, ok := m.memory.Read(uint32(at), uint32(n))
	if !ok {
		panic("the guest points outside of its memory")
	}
	return b
}

func (m *machine) put32(at uint64, v uint32) { binary.LittleEndian.PutUint32(m.bytes(at, 4), v) }
func (m *machine) put64(at uint64, v uint64) { binary.LittleEndian.PutUint64(m.bytes(at, 8), v) }

func (m *machine) sizes(s []uint64, of []string) {
	n := 0
	for _, x := range of {
		n += len(x) + 1
	}
	m.put32(s[0], uint32(len(of)))
	m.put32(s[1], uint32(n))
	s[0] = success
}

func (m *machine) strings(s []uint64, of []string) {
	at := s[1]
	for i, x := range of {
		m.put32(s[0]+4*uint64(i), uint32(at))
		copy(m.bytes(at, uint64(len(x)+1)), x+"\x00")
		at += uint64(len(x) + 1)
	}
	s[0] = success
}

// Clocks of WASI.
const (
	realtime  = 0
	monotonic = 1
)

// epoch is the date at which runs begin.
const epoch = 1_700_000_000 * time.Second

// tick is how long looking at the clock takes: a guest that only looks at it does
// not stand still.
const tick = 100 * time.Nanosecond

func (m *machine) clockTimeGet(s []uint64) {
	m.world.now += tick
	t := m.world.now + time.Second // no machine is just switched on
	if s[0] == realtime {
		t = epoch + m.world.now + m.wall
	}
	m.put64(s[2], uint64(t))
	s[0] = success
}

func (m *machine) randomGet(s []uint64) {
	// Read of a ChaCha8 never fails.
	_, _ = m.random.Read(m.bytes(s[0], s[1]))
	s[0] = success
}

// The layout of subscriptions and events of poll_oneoff.
const (
	subscriptionSize, eventSize = 48, 32
	clockEvent, readEvent       = 0, 1
)

// pollOneoff waits until the network has something or a time has come. It is the
// only place where an instance waits.
func (m *machine) pollOneoff(s []uint64) {
	in, out, count, result := s[0], s[1], s[2], s[3]
	subs := append([]byte(nil), m.bytes(in, count*subscriptionSize)...)
	wait := nap{}
	block := true
	for ; len(subs) > 0; subs = subs[subscriptionSize:] {
		switch subs[8] {
		case clockEvent:
			d := time.Duration(binary.LittleEndian.Uint64(subs[24:]))
			wait.until, block = m.world.now+d, block && d > 0
		case readEvent:
			wait.input = true
		default:
			panic("the guest waits for what never comes")
		}
	}
	if block && !(wait.input && len(m.inbox) > 0) {
		m.sleep(wait)
	}
	n := uint64(0)
	for subs := append([]byte(nil), m.bytes(in, count*subscriptionSize)...); len(subs) > 0; subs = subs[subscriptionSize:] {
		kind := subs[8]
		if kind == clockEvent && m.world.now < wait.until || kind == readEvent && len(m.inbox) == 0 {
			continue
		}
		e := m.bytes(out+n*eventSize, eventSize)
		clear(e)
		copy(e, subs[:8])
		e[10] = kind
		n++
	}
	m.put32(result, uint32(n))
	s[0] = success
}

// sleep gives the world to others.
func (m *machine) sleep(until nap) {
	if m.dead || !m.yield(until) {
		panic(errCrashed)
	}
	m.nap = nap{}
}

func (m *machine) fdWrite(s []uint64) {
	fd := s[0]
	total := uint64(0)
	for i := range s[2] {
		v := m.bytes(s[1]+8*i, 8)
		p := m.bytes(uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[4:])))
		total += uint64(len(p))
		switch fd {
		case 1, 2:
			m.print(p)
		case wire.Record:
			m.world.recorded(p)
		default:
			s[0] = badFile
			return
		}
	}
	m.put32(s[3], uint32(total))
	s[0] = success
}

func (m *machine) fdRead(s []uint64) {
	switch {
	case s[0] != wire.Card:
		s[0] = badFile
		return
	case len(m.inbox) == 0:
		s[0] = again
		return
	}
	total := 0
	for i := range s[2] {
		v := m.bytes(s[1]+8*i, 8)
		n := copy(m.bytes(uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[4:]))), m.inbox)
		m.inbox = m.inbox[n:]
		total += n
	}
	m.put32(s[3], uint32(total))
	s[0] = success
}

// fdstatGet says of a file what Go's runtime wants to know: whether it can be waited for.
func (m *machine) fdstatGet(s []uint64) {
	const size, characterDevice, nonblock = 24, 2, 4
	if s[0] > wire.Record {
		s[0] = badFile
		return
	}
	b := m.bytes(s[1], size)
	clear(b)
	b[0] = characterDevice
	if s[0] == wire.Card {
		b[2] = nonblock
	}
	binary.LittleEndian.PutUint64(b[8:], ^uint64(0)) // all rights
	s[0] = success
}
