package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
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

// Compare runs the script against both clusters, which must be fresh.
func Compare(ctx context.Context, left, right *cluster.Cluster) (steps int, diffs []Difference, err error) {
	binary, err := cluster.BinaryPath("etcdctl")
	if err != nil {
		return 0, nil, err
	}
	shells := [2]*shell{{binary: binary, cluster: left}, {binary: binary, cluster: right}}
	for _, s := range script() {
		var printed [2]string
		var wg sync.WaitGroup
		for i, sh := range shells {
			wg.Go(func() { printed[i] = mask(s.args, sh.run(ctx, s)) })
		}
		wg.Wait()
		steps++
		if printed[0] != printed[1] {
			diffs = append(diffs, Difference{s.args, printed[0], printed[1]})
		}
		if ctx.Err() != nil {
			return steps, diffs, ctx.Err()
		}
	}
	return steps, diffs, nil
}

// shell runs etcdctl against one cluster.
type shell struct {
	binary  string
	cluster *cluster.Cluster
	lease   string // in hexadecimal, as granted last
}

var granted = regexp.MustCompile(`lease ([0-9a-f]+) granted`)

// run gives all that one command printed, and how it ended.
func (sh *shell) run(ctx context.Context, s step) string {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var args []string
	for _, w := range s.words() {
		args = append(args, strings.ReplaceAll(w, "{lease}", sh.lease))
	}
	args = append(args, "--endpoints", strings.Join(sh.cluster.Endpoints(), ","))
	cmd := exec.CommandContext(ctx, sh.binary, args...)
	cmd.Stdin = strings.NewReader(s.stdin)
	var out syncBuffer
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	if s.watch {
		out.waitFor(ctx, lastSeen(s))
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
	case s.watch: // ended by us
	case errors.As(err, &exit):
		text += fmt.Sprintf("(exit code %d)", exit.ExitCode())
	}
	return text
}

// lastSeen is how the last value shows in a watch's output.
func lastSeen(s step) string {
	if strings.Contains(s.args, "-w json") {
		return "dGhhdC13YXMtYWxs" // base64 of lastValue
	}
	return lastValue
}

// syncBuffer is written by the command and read while it runs.
type syncBuffer struct {
	mu struct {
		sync.Mutex
		buf bytes.Buffer
	}
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.buf.String()
}

// waitFor waits until the text ends a line, or the context ends.
func (b *syncBuffer) waitFor(ctx context.Context, text string) {
	for ctx.Err() == nil {
		if _, rest, ok := strings.Cut(b.String(), text); ok && strings.Contains(rest, "\n") {
			// What the same response printed after the line is written at once.
			time.Sleep(20 * time.Millisecond)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
