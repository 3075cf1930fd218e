//go:build linux

package real

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tampering is a strace that changes a member's system calls while it is attached.
type tampering struct {
	cmd  *exec.Cmd
	out  string
	done chan struct{}
}

// System calls by what they do; names that the machine does not know are ignored.
const (
	callsOfSync  = "fdatasync,fsync"
	callsOfWrite = "pwrite64,pwritev"
	callsOfRead  = "pread64,preadv"
)

// strace is the command that changes calls; what is its word for what happens to
// them. All threads are stopped at each call, so the member is slow meanwhile.
func (r *Run) strace(out, calls, what string) ([]string, error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return nil, fmt.Errorf("%w: %w", errSkipped, err)
	}
	return []string{"strace", "-f", "-q", "-o", out, "-e", "trace=" + calls, "-e", "inject=" + calls + ":" + what}, nil
}

// tamper attaches to a member's process.
func (r *Run) tamper(m *Member, calls, what string) (*tampering, error) {
	t := &tampering{out: filepath.Join(r.dir, fmt.Sprint("strace-", m.Name)), done: make(chan struct{})}
	args, err := r.strace(t.out, calls, what)
	if err != nil {
		return nil, err
	}
	os.Remove(t.out)
	t.cmd = exec.Command(args[0], append(args[1:], "-p", fmt.Sprint(m.pid()))...)
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(t.done)
		_ = t.cmd.Wait() // it ends as its member or its signal has it
	}()
	return t, nil
}

// met counts the calls that were changed so far.
func (t *tampering) met() int {
	b, _ := os.ReadFile(t.out) // not there yet: none
	return strings.Count(string(b), "(INJECTED)") + strings.Count(string(b), "(DELAYED)") + strings.Count(string(b), "<detached")
}

// await waits until a call was changed.
func (t *tampering) await(limit time.Duration) error {
	return within(limit, func() error {
		if t.met() == 0 {
			return fmt.Errorf("%w: no call met it", errNothing)
		}
		return nil
	})
}

// end detaches.
func (t *tampering) end() error {
	if err := t.cmd.Process.Signal(unix.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-t.done:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("strace does not let go")
	}
}
