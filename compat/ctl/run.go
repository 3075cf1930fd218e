package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
)

// stepTimeout ends a step that hangs, which is then a difference.
const stepTimeout = 20 * time.Second

// Difference is one command that printed something else.
type Difference struct {
	Command     string
	Left, Right string // masked
}

func (d Difference) String() string {
	return fmt.Sprintf("etcdctl %s\n--- left\n%s\n--- right\n%s", d.Command, d.Left, d.Right)
}

// Mode is how etcdctl reaches both clusters.
type Mode struct {
	Certs *cluster.Certs // of both clusters; nil: no TLS
}

// Compare runs the steps against both clusters, which must be fresh. dir takes
// what they write.
func Compare(ctx context.Context, left, right *cluster.Cluster, mode Mode, dir string, steps []step) (done int, diffs []Difference, err error) {
	var shells [2]*shell
	for i, c := range []*cluster.Cluster{left, right} {
		if shells[i], err = newShell(c, mode, filepath.Join(dir, strconv.Itoa(i))); err != nil {
			return 0, nil, err
		}
	}
	for _, s := range steps {
		var printed [2]string
		var wg sync.WaitGroup
		for i, sh := range shells {
			wg.Go(func() { printed[i] = mask(s.args, strings.ReplaceAll(sh.run(ctx, s), sh.dir, "DIR")) })
		}
		wg.Wait()
		done++
		if printed[0] != printed[1] {
			diffs = append(diffs, Difference{s.args, printed[0], printed[1]})
		}
		if ctx.Err() != nil {
			return done, diffs, ctx.Err()
		}
	}
	return done, diffs, nil
}

// shell runs etcdctl against one cluster.
type shell struct {
	tools   map[string]string // paths
	cluster *cluster.Cluster
	flags   []string
	dir     string
	lease   string // in hexadecimal, as granted last
}

func newShell(c *cluster.Cluster, mode Mode, dir string) (*shell, error) {
	sh := &shell{tools: map[string]string{}, cluster: c, dir: dir}
	for _, name := range []string{"etcdctl", "etcdutl"} {
		path, err := cluster.BinaryPath(name)
		if err != nil {
			return nil, err
		}
		sh.tools[name] = path
	}
	if mode.Certs != nil {
		cert, key, _, err := mode.Certs.Client("etcdctl")
		if err != nil {
			return nil, err
		}
		sh.flags = []string{"--cacert", mode.Certs.CA, "--cert", cert, "--key", key}
	}
	return sh, os.MkdirAll(dir, 0o755)
}

var granted = regexp.MustCompile(`lease ([0-9a-f]+) granted`)

// command fills a step's arguments in.
func (sh *shell) command(ctx context.Context, s step) *exec.Cmd {
	var urls []string
	for _, m := range sh.cluster.Members {
		urls = append(urls, m.ClientURL())
	}
	fill := strings.NewReplacer("{lease}", sh.lease, "{dir}", sh.dir, "{endpoint}", urls[0])
	var args []string
	for _, w := range s.words() {
		args = append(args, fill.Replace(w))
	}
	if s.tool != "" {
		return exec.CommandContext(ctx, sh.tools[s.tool], args...)
	}
	if !strings.Contains(s.args, "--endpoints") {
		args = append(args, "--endpoints", strings.Join(urls, ","))
	}
	if s.user != "" {
		args = append(args, "--user", strings.ReplaceAll(s.user, "·", " "))
	}
	return exec.CommandContext(ctx, sh.tools["etcdctl"], append(args, sh.flags...)...)
}

// run gives all that one command printed, and how it ended.
func (sh *shell) run(ctx context.Context, s step) string {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	cmd := sh.command(ctx, s)
	cmd.Stdin = strings.NewReader(s.stdin)
	var out Buffer
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	switch {
	case s.polled != "":
		sh.poll(ctx, s)
		_ = cmd.Process.Signal(os.Interrupt)
	case s.until != "":
		out.WaitFor(ctx, s.until)
		_ = cmd.Process.Signal(os.Interrupt)
	}
	err := cmd.Wait()
	if m := granted.FindStringSubmatch(out.String()); m != nil {
		sh.lease = m[1]
	}
	text := out.String() + stderr.String()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		text += "(did not end)"
	case s.until != "": // ended by us
	case errors.As(err, &exit):
		text += fmt.Sprintf("(exit code %d)", exit.ExitCode())
	}
	return text
}

// poll runs the step's other command until it prints what is waited for.
func (sh *shell) poll(ctx context.Context, s step) {
	for ctx.Err() == nil {
		out, err := sh.command(ctx, step{args: s.polled, user: s.user}).Output()
		if err == nil && strings.Contains(string(out), s.until) {
			return
		}
	}
}

// Buffer is written by a command and read while it runs.
type Buffer struct {
	mu struct {
		sync.Mutex
		buf bytes.Buffer
	}
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.buf.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.buf.String()
}

// WaitFor waits until the text ends a line, or the context ends.
func (b *Buffer) WaitFor(ctx context.Context, text string) {
	for ctx.Err() == nil {
		if _, rest, ok := strings.Cut(b.String(), text); ok && strings.Contains(rest, "\n") {
			// What the same response printed after the line is written at once.
			time.Sleep(20 * time.Millisecond)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
