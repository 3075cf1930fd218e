//go:build linux

package real

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups is where the controllers of version 1 are mounted, each in a folder.
const cgroups = "/sys/fs/cgroup"

// errNoCgroup: this machine does not have the controller.
var errNoCgroup = errors.New("no such cgroup controller (version 1)")

// cgroup is one group of one controller. Its name begins with the owner's.
type cgroup struct{ dir string }

// newCgroup makes a group and puts a process into it.
func newCgroup(owner, controller, name string, pid int) (*cgroup, error) {
	base := filepath.Join(cgroups, controller)
	if _, err := os.Stat(filepath.Join(base, "cgroup.procs")); err != nil {
		return nil, fmt.Errorf("%w: %s", errNoCgroup, controller)
	}
	g := &cgroup{filepath.Join(base, owner+"-"+name)}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return g, g.set("cgroup.procs", strconv.Itoa(pid))
}

func (g *cgroup) set(file, value string) error {
	return os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0)
}

func (g *cgroup) get(file string) string {
	b, _ := os.ReadFile(filepath.Join(g.dir, file)) // absent: empty
	return strings.TrimSpace(string(b))
}

// remove moves the group's processes to the root, and ends it.
func (g *cgroup) remove() error {
	root, err := os.OpenFile(filepath.Join(filepath.Dir(g.dir), "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, pid := range strings.Fields(g.get("cgroup.procs")) {
		if _, err := root.WriteString(pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return removeGroup(g.dir)
}

// removeGroup waits until the kernel has let go of the group's dead processes.
func removeGroup(dir string) error {
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) || time.Since(begin) > 5*time.Second {
			return err
		}
	}
}

// sweepCgroups removes the groups of a sandbox whose processes are gone.
func sweepCgroups(owner int) {
	left, _ := filepath.Glob(fmt.Sprintf("%s/*/%s%d-*", cgroups, prefix, owner)) // the pattern is well-formed
	for _, dir := range left {
		if err := os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0); err != nil {
			_ = err // it is not a freezer
		}
		if err := removeGroup(dir); err != nil {
			fmt.Fprintln(os.Stderr, "chaos: left behind:", err)
		}
	}
}
