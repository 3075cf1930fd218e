package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is a program that a suite starts, ends and starts again. Its methods
// are for one goroutine at a time, except those that only read.
type Process struct {
	Name   string // in messages
	Binary string
	Args   []string
	Dir    string // where it runs; holds log

	mu struct {
		sync.Mutex
		cmd  *exec.Cmd
		done chan struct{} // closed when the process has been waited for
		err  error
	}
}

// LogPath is the file that holds what the process printed, over all its lives.
func (p *Process) LogPath() string { return filepath.Join(p.Dir, "log") }

// Start runs the process and returns at once.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.Binary, p.Args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = p.Dir
	// A child never outlives the suite that started it, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	p.mu.cmd, p.mu.done = cmd, done
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.mu.err = err
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// PID is the running process, or 0.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.cmd == nil {
		return 0
	}
	select {
	case <-p.mu.done:
		return 0
	default:
		return p.mu.cmd.Process.Pid
	}
}

// Exited is closed when the current process has ended.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.done
}

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() { p.signal(syscall.SIGKILL, 10*time.Second) }

// Stop asks the process to end, and kills it when it does not within the
// timeout, which is an error.
func (p *Process) Stop(timeout time.Duration) error {
	if p.PID() == 0 {
		return nil
	}
	if p.signal(syscall.SIGTERM, timeout) {
		return nil
	}
	p.Kill()
	return fmt.Errorf("%s did not stop within %v of SIGTERM", p.Name, timeout)
}

// Signal sends a signal and does not wait.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.cmd == nil {
		return errors.New("not started")
	}
	return p.mu.cmd.Process.Signal(sig)
}

func (p *Process) signal(sig syscall.Signal, timeout time.Duration) bool {
	if p.PID() == 0 {
		return true
	}
	done := p.Exited()
	_ = p.Signal(sig)
	select {
	case <-done:
		return true
	case <-time.After(timeout):
		return false
	}
}
