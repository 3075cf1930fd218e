package k8s

import (
	"bufio"
	"context"
	_ "embed" // for the replacement file
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Module is what is tested, at the version whose tests were counted.
const Module = "k8s.io/apiserver@v0.37.2"

// DefaultPackages are those whose tests start a store: the storage contract on
// the store itself, through the watch cache, and through the generic registry.
var DefaultPackages = []string{"./pkg/storage/etcd3/...", "./pkg/storage/cacher/...", "./pkg/registry/generic/registry/..."}

const replaced = "pkg/storage/etcd3/testserver/test_server.go"

//go:embed testserver.go.txt
var testserver []byte

// Options of a run.
type Options struct {
	Store    string   // path of the binary
	Work     string   // where the copy of the module is kept between runs
	Packages []string // relative to the module, DefaultPackages if none
	Args     []string // further arguments of go test, such as -run
	Output   io.Writer
}

// Result counts the test cases, subtests included.
type Result struct {
	Top, Passed, Failed, Skipped int
	Failures                     []Failure
}

// Failure is a failed case with what it printed.
type Failure struct {
	Test   string
	Output string
}

// Run makes the copy when there is none and runs the tests in it.
func Run(ctx context.Context, opt Options) (Result, error) {
	dir, err := prepare(ctx, opt.Work)
	if err != nil {
		return Result{}, err
	}
	store, err := filepath.Abs(opt.Store)
	if err != nil {
		return Result{}, err
	}
	packages := opt.Packages
	if len(packages) == 0 {
		packages = DefaultPackages
	}
	args := append([]string{"test", "-json", "-count=1", "-timeout=20m", "-p=1"}, opt.Args...)
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "STORE_UNDER_TEST="+store, "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Stderr = opt.Output
	out, err := cmd.StdoutPipe()
	if err != nil {
		return Result{}, err
	}
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	res, readErr := collect(out, opt.Output)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && res.Failed > 0 {
		err = nil // the failed cases say it
	}
	return res, errors.Join(readErr, err)
}

// prepare copies the module with the one file replaced. The copy is kept, because
// the first build of these tests takes minutes.
func prepare(ctx context.Context, work string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", Module)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("download %s: %w", Module, err)
	}
	var info struct{ Dir string }
	if err := json.Unmarshal(out, &info); err != nil {
		return "", err
	}
	dir := filepath.Join(work, filepath.Base(info.Dir))
	done := filepath.Join(dir, ".complete")
	if _, err := os.Stat(done); err != nil {
		if err := copyTree(info.Dir, dir); err != nil {
			return "", err
		}
		if err := os.WriteFile(done, nil, 0o644); err != nil {
			return "", err
		}
	}
	return dir, os.WriteFile(filepath.Join(dir, replaced), testserver, 0o644)
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}

// event is a line of go test's JSON output.
type event struct {
	Action, Package, Test, Output string
}

// keptLines bounds what is kept of a failed case's output.
const keptLines = 60

func collect(r io.Reader, progress io.Writer) (Result, error) {
	var res Result
	output := map[string][]string{}
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 64<<20)
	for scan.Scan() {
		var ev event
		if err := json.Unmarshal(scan.Bytes(), &ev); err != nil {
			fmt.Fprintln(progress, scan.Text())
			continue
		}
		name := ev.Package + " " + ev.Test
		if ev.Action == "output" {
			output[name] = append(output[name], ev.Output)
			if ev.Test == "" && !strings.HasPrefix(ev.Output, "PASS") {
				fmt.Fprint(progress, ev.Output)
			}
			continue
		}
		res.count(ev, name, output)
	}
	return res, scan.Err()
}

func (res *Result) count(ev event, name string, output map[string][]string) {
	if ev.Test == "" {
		// A package that fails without a failed test did not build, or panicked.
		if ev.Action == "fail" && !slices.ContainsFunc(res.Failures, func(f Failure) bool { return strings.HasPrefix(f.Test, ev.Package+" ") }) {
			res.Failed++
			res.Failures = append(res.Failures, Failure{ev.Package, strings.Join(output[name], "")})
		}
		return
	}
	switch ev.Action {
	case "pass":
		res.Passed++
	case "skip":
		res.Skipped++
	case "fail":
		res.Failed++
		lines := output[name]
		lines = lines[max(0, len(lines)-keptLines):]
		res.Failures = append(res.Failures, Failure{name, strings.Join(lines, "")})
	default:
		return
	}
	if !strings.Contains(ev.Test, "/") {
		res.Top++
	}
	delete(output, name)
}
