package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// machine is one life of a node's process: an instance of the guest, as a
// coroutine that runs until it has nothing to do, or dies.
type machine struct {
	*node
	memory api.Memory
	random *rand.ChaCha8
	next   func() (nap, bool)
	stop   func()
	yield  func(nap) bool // suspends it, from inside; false: it must die
	dead   bool           // crashed: it must not go on
	gone   bool           // it has returned
	err    error

	nap     nap // what it waits for, while it is not running
	naps    int
	inbox   []byte
	pauses  int
	due     bool // it would run, but for being paused
	calls   int
	dieAt   int    // at this call; 0: never
	death   func() // then
	files   map[uint32]any
	handles uint32
	stderr  []byte
}

// nap is what a machine waits for that has nothing to do.
type nap struct {
	until time.Duration // 0: only the network can wake it
	input bool          // the network can
}

var errCrashed = errors.New("crashed")

// boot starts a node's process.
func (w *world) boot(n *node) {
	n.life++
	key := [32]byte{byte(n.number), byte(n.life), byte(n.life >> 8)}
	for i := range 8 {
		key[8+i] = byte(w.cfg.Seed >> (8 * i))
	}
	m := &machine{node: n, random: rand.NewChaCha8(key), files: map[uint32]any{}}
	n.machine, n.powered = m, true
	m.next, m.stop = iter.Pull(func(yield func(nap) bool) { m.live(yield) })
	w.say("%s starts, life %d", n.name, n.life)
	w.after(0, m.step)
}

// live is the whole life of the instance.
func (m *machine) live(yield func(nap) bool) {
	ctx := context.WithValue(context.Background(), machineKey{}, m)
	m.yield = yield
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions("_start")
	mod, err := m.world.image.runtime.InstantiateModule(ctx, m.world.image.module, cfg)
	if mod != nil {
		err = errors.Join(err, mod.Close(ctx))
	}
	m.err = err
}

// step lets the machine run until it waits again or is gone.
func (m *machine) step() {
	if m.gone {
		return
	}
	if m.pauses > 0 {
		m.due = true
		return
	}
	m.naps++
	nap, alive := m.next()
	if !alive {
		m.gone = true
		m.ended()
		return
	}
	if m.nap = nap; nap.until > 0 {
		m.wakeAfter(nap.until - m.world.now)
	}
}

// wakeAfter wakes the machine, unless it was woken meanwhile.
func (m *machine) wakeAfter(d time.Duration) {
	nap := m.naps
	m.world.after(max(0, d), func() {
		if m.naps == nap {
			m.step()
		}
	})
}

// hear puts an event of the network into the machine's inbox.
func (m *machine) hear(event []byte) {
	if m.gone || m.dead {
		return
	}
	first := len(m.inbox) == 0
	m.inbox = append(m.inbox, event...)
	if first && m.nap.input {
		m.wakeAfter(m.world.between(0, m.world.cfg.ScheduleDelay))
	}
}

// resume ends one of its pauses.
func (m *machine) resume() {
	if m.pauses--; m.pauses == 0 && m.due {
		m.due = false
		m.step()
	}
}

// end ends the machine at once, wherever it is; nil is no machine. A machine that
// runs ends itself, at the next call of the host.
func (m *machine) end() {
	if m == nil || m.gone {
		return
	}
	m.dead, m.gone = true, true
	m.stop()
}

// ended is what the world learns of a process that has returned by itself.
func (m *machine) ended() {
	if m.dead {
		return
	}
	code := 0
	var exit *sys.ExitError
	switch {
	case errors.As(m.err, &exit):
		code = int(exit.ExitCode())
	case m.err != nil:
		code = -1
		m.stderr = append(m.stderr, "panic: "+m.err.Error()...)
	}
	m.world.exited(m, code)
}

// lastWords is the end of what it printed, from a panic on if there was one.
func (m *machine) lastWords() string {
	text := string(m.stderr)
	for _, begin := range []string{"panic:", "fatal error:"} {
		if i := strings.LastIndex(text, begin); i >= 0 {
			return text[i:min(len(text), i+4000)]
		}
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "\n")
}

// exited: a process has ended that nobody killed. A member is started again, as
// a supervisor would.
func (w *world) exited(m *machine, code int) {
	w.say("%s exits with %d: %s", m.name, code, m.lastWords())
	w.lose(m.node, false)
	if m.clients {
		var err error
		if code != 0 {
			err = fmt.Errorf("liveness: the clients ended with code %d: %s", code, m.lastWords())
		}
		w.finish(err)
		return
	}
	w.exits = append(w.exits, exit{at: w.now, node: m.node, code: code, text: m.lastWords()})
	w.after(restartAfter, func() {
		if m.node.machine == m {
			w.boot(m.node)
		}
	})
}

// restartAfter is how long a supervisor takes to start a process again.
const restartAfter = 200 * time.Millisecond

// environment is the guest's.
func (m *machine) environment() []string {
	env := []string{"GOGC=400"} // memory costs less than time here
	if m.world.cfg.Planted != "" {
		env = append(env, "KEELSON_PLANTED="+m.world.cfg.Planted)
	}
	return env
}

// keptOutput is how much of what a process prints is kept for its last words.
const keptOutput = 64 << 10

// print is what the process writes to its standard outputs.
func (m *machine) print(p []byte) {
	text := strings.TrimRight(string(p), "\n")
	m.world.say("%s| %s", m.name, text)
	if strings.Contains(text, "level=ERROR") {
		m.world.lines = append(m.world.lines, line{at: m.world.now, node: m.node, text: text})
	}
	m.stderr = append(m.stderr, p...)
	m.stderr = m.stderr[max(0, len(m.stderr)-keptOutput):]
}
