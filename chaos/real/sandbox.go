//go:build linux

package real

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUnavailable: this machine or user cannot run ring C; the error says why.
var ErrUnavailable = errors.New("ring C needs Linux, root, /dev/net/tun, loop devices and mkfs.ext4")

// insideEnv holds the folder of a process in the sandbox; its parent set it.
const insideEnv = "KEELSON_CHAOS_SANDBOX"

// prefix begins the names of all that lies outside the sandbox; the rest is the
// pid of the process that owns it.
const prefix = "keelson-chaos-"

// Available says why a sandbox cannot be made here, if it cannot.
func Available() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: not root", ErrUnavailable)
	}
	for _, dev := range []string{"/dev/net/tun", "/dev/loop-control"} {
		if _, err := os.Stat(dev); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	for _, tool := range []string{"mkfs.ext4", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: sandboxFlags}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: namespaces: %w", ErrUnavailable, err)
	}
	return nil
}

const memory = "memory"

const sandboxFlags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Enter runs the program again, with the same arguments, in a sandbox, and
// returns how that ended. Inside, it returns the sandbox's folder at once, and
// the caller goes on. The folder is gone afterwards; prepare fills it before. What
// lies in its folder "memory" is that, and known to the sandbox alone.
func Enter(prepare func(dir string) error) (dir string, inside bool, err error) {
	if dir := os.Getenv(insideEnv); dir != "" {
		return dir, true, furnish(filepath.Join(dir, memory))
	}
	if err := Available(); err != nil {
		return "", false, err
	}
	sweep()
	dir = filepath.Join(os.TempDir(), fmt.Sprint(prefix, os.Getpid()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", false, err
	}
	defer func(dir string) { // the result of that name is empty by then
		sweepCgroups(os.Getpid())
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "chaos: left behind:", err)
		}
	}(dir)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, memory), 0o700), prepare(dir)); err != nil {
		return "", false, err
	}
	// A child is killed when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: sandboxFlags, Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return "", false, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals: // a terminal sends it to both; the second one is to no harm
			if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return "", false, err
			}
		case err := <-done:
			return "", false, err
		}
	}
}

// furnish makes the sandbox's mounts its own.
func furnish(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6g"); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return setUp("lo", "127.0.0.1", 8)
}

// sweep removes what killed runs have left.
func sweep() {
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")) // the pattern is well-formed
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), prefix))
		if err == nil && gone(pid) {
			sweepCgroups(pid)
			os.RemoveAll(dir)
		}
	}
}

func gone(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }
