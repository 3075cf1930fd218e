//go:build linux

package real

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Member is one seat of the cluster: an address, a disk, and a process that comes
// and goes.
type Member struct {
	c    *Cluster
	Name string
	Addr netip.Addr
	ID   uint64 // known once it was ready
	Disk *Disk
	seat int

	binary string   // what it runs; an upgrade changes it
	args   []string // beyond those that every member has
	env    []string // of its processes
	joins  string   // new or existing: of --initial-cluster-state
	under  []string // a command that the next life runs under, which leaves its process the harness's child

	mu   sync.Mutex // guards what follows
	p    *process   // nil: it never ran
	life int
	past []exit
	log  []logLine
}

// process is one life of a member.
type process struct {
	cmd   *exec.Cmd
	log   *os.File      // standard error's other end
	ended chan struct{} // closed when it has ended and its log was read
	held  chan struct{} // not nil: its log is not read until this is closed
	err   error         // after ended

	mu       sync.Mutex
	expected string // why it may end in another way than by a clean stop
}

// exit is how a process ended.
type exit struct {
	Member string
	At     time.Duration
	Code   int // -1: a signal
	Signal string
	Why    string // the fault that explains it; empty: none
	Last   string // the last line it wrote to standard error that is no log record
}

// logLine is one record of a member's log.
type logLine struct {
	At          time.Duration
	Level, Text string
	Raw         string
	Why         string // the fault that was to end the process, if there was one by then
}

func (m *Member) dataDir() string { return filepath.Join(m.Disk.dir, "data") }

func (m *Member) clientURL() string { return fmt.Sprintf("%s://%s:2379", m.c.scheme(), m.Addr) }
func (m *Member) peerURL() string   { return fmt.Sprintf("%s://%s:2380", m.c.scheme(), m.Addr) }

// endpoint is what clients dial.
func (m *Member) endpoint() string { return fmt.Sprintf("%s:2379", m.Addr) }

// start begins a life of the member.
func (m *Member) start(more ...string) error {
	args := append([]string{
		"--name=" + m.Name, "--data-dir=" + m.dataDir(), "--initial-cluster=" + m.c.initial(m), "--initial-cluster-state=" + m.joins,
		"--listen-peer-urls=" + m.peerURL(), "--initial-advertise-peer-urls=" + m.peerURL(),
		"--listen-client-urls=" + m.clientURL(), "--advertise-client-urls=" + m.clientURL(),
	}, m.c.args...)
	if m.c.certs != nil {
		args = append(args, m.c.certs.args(m.seat)...)
	}
	if m.c.objects {
		args = append(args, "--listen-resource-urls="+m.resourceURL())
	}
	args = append(append(args, m.args...), more...)
	under := append(append(m.under, m.binary), args...)
	m.under = nil
	cmd := exec.Command(under[0], under[1:]...)
	cmd.Dir = m.c.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GOTRACEBACK=all", plantedEnv + "=" + os.Getenv(plantedEnv)}, m.env...)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stderr = w
	m.c.ns[m.seat-1].do(func() { err = cmd.Start() })
	w.Close()
	if err != nil {
		r.Close()
		return fmt.Errorf("start %s: %w", m.Name, err)
	}
	p := &process{cmd: cmd, log: r, ended: make(chan struct{})}
	m.mu.Lock()
	m.life++
	m.p = p
	m.mu.Unlock()
	m.c.note("%s starts (life %d, pid %d)", m.Name, m.life, cmd.Process.Pid)
	go m.follow(p, r)
	return nil
}

// plantedEnv reaches members, so that a run can be seen to find the bugs of package
// planted.
const plantedEnv = "KEELSON_PLANTED"

// follow reads the log of a process until it ends, and notes how.
func (m *Member) follow(p *process, r *os.File) {
	defer close(p.ended)
	last := ""
	in := bufio.NewReaderSize(r, 1<<16)
	for {
		text, err := in.ReadString('\n')
		if text = strings.TrimSpace(text); text != "" {
			if !m.keep(p, text) {
				last = text
			}
		}
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		if held != nil {
			<-held
		}
		if err != nil {
			break
		}
	}
	r.Close()
	p.err = p.cmd.Wait()
	e := exit{Member: m.Name, At: m.c.now(), Last: last}
	st := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if e.Code = st.ExitStatus(); st.Signaled() {
		e.Signal = st.Signal().String()
	}
	p.mu.Lock()
	e.Why = p.expected
	p.mu.Unlock()
	m.mu.Lock()
	m.past = append(m.past, e)
	m.mu.Unlock()
	m.c.note("%s ends: code %d %s (%s) %s", m.Name, e.Code, e.Signal, e.Why, last)
}

// keep notes a line of the member's log; false: it is no log record.
func (m *Member) keep(p *process, text string) bool {
	var rec struct{ Level, Msg string }
	ok := json.Unmarshal([]byte(text), &rec) == nil
	p.mu.Lock()
	why := p.expected
	p.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.log) < maxLog {
		m.log = append(m.log, logLine{At: m.c.now(), Level: strings.ToLower(rec.Level), Text: rec.Msg, Raw: text, Why: why})
	}
	return ok
}

// maxLog bounds what is kept of one member's log, in lines.
const maxLog = 200_000

// process returns the present life; nil if the member is down.
func (m *Member) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.p == nil {
		return nil
	}
	select {
	case <-m.p.ended:
		return nil
	default:
		return m.p
	}
}

// expect says why the process may end by itself.
func (m *Member) expect(why string) {
	if p := m.process(); p != nil {
		p.mu.Lock()
		p.expected = why
		p.mu.Unlock()
	}
}

// pid of the running process, 0 if there is none.
func (m *Member) pid() int {
	if p := m.process(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

var errDown = errors.New("the member is down")

// signal sends a signal to the running process.
func (m *Member) signal(s syscall.Signal) error {
	p := m.process()
	if p == nil {
		return fmt.Errorf("%s: %w", m.Name, errDown)
	}
	m.c.strike()
	return p.cmd.Process.Signal(s)
}

// kill ends the process without warning and waits for it.
func (m *Member) kill(why string) error {
	m.expect(why)
	if err := m.signal(unix.SIGKILL); err != nil {
		return err
	}
	return m.wait(10 * time.Second)
}

// stop asks the process to end, and demands that it does so with code 0.
func (m *Member) stop() error {
	if err := m.signal(unix.SIGTERM); err != nil {
		return err
	}
	if err := m.wait(30 * time.Second); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.past[len(m.past)-1]; e.Code != 0 {
		return fmt.Errorf("O12: %s was asked to stop and ended with code %d %s: %s", e.Member, e.Code, e.Signal, e.Last)
	}
	return nil
}

// wait waits until the process has ended.
func (m *Member) wait(limit time.Duration) error {
	m.mu.Lock()
	p := m.p
	m.mu.Unlock()
	select {
	case <-p.ended:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s does not end within %v", m.Name, limit)
	}
}

// down reports that no process runs.
func (m *Member) down() bool { return m.process() == nil }

// exits and lines return what is known so far.
func (m *Member) exits() []exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]exit(nil), m.past...)
}

func (m *Member) lines() []logLine {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]logLine(nil), m.log...)
}

// holdLog stops the reading of the log, so that the pipe fills; queued tells how
// many bytes wait in it. release may be called twice.
func (m *Member) holdLog() (release func(), queued func() int) {
	p := m.process()
	if p == nil {
		return func() {}, func() int { return 0 }
	}
	held := make(chan struct{})
	p.mu.Lock()
	p.held = held
	p.mu.Unlock()
	release = sync.OnceFunc(func() {
		p.mu.Lock()
		p.held = nil
		p.mu.Unlock()
		close(held)
	})
	return release, func() (n int) {
		if raw, err := p.log.SyscallConn(); err == nil { // a closed pipe: nothing
			_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		}
		return n
	}
}

// powerCut loses what the member has not synced, and its process with it. The disk
// works again when it returns.
//
// The network goes first. A sync that is under way when ext4 is shut down may
// report success although it lost its bytes (the change of an extent from unwritten
// to written fails, and nobody is told); after a real power cut nobody could hear
// of that, and so it must be here. The namespace goes with it, because the kernel
// would go on sending what a dead process has left in its sockets.
func (m *Member) powerCut(journal int, after time.Duration) error {
	m.expect("power cut")
	m.c.strike()
	m.c.ns[m.seat-1].close()
	err := m.Disk.cutPower(journal)
	if err == nil {
		time.Sleep(after) // the process may notice
		if !m.down() {
			err = m.kill("power cut")
		}
	}
	if errors.Is(err, errDown) || errors.Is(err, os.ErrProcessDone) {
		err = nil // it has noticed
	}
	return errors.Join(err, m.Disk.restorePower(), m.c.wire(m.seat))
}
