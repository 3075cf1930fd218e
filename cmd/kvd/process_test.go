package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/server/porttest"
)

// asKvd makes this test program behave as kvd: real processes, and the race
// detector watches them, too.
const asKvd = "KVD_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asKvd) != "" {
		coarseTimers()
		os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// patience is reached only when something hangs.
const patience = time.Minute

// process is a running kvd.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	output *lockedBuffer
	done   chan struct{} // closed when it has ended
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, output: &lockedBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = []string{asKvd + "=1", "PATH=" + os.Getenv("PATH"), "NOTIFY_SOCKET=" + os.Getenv("NOTIFY_SOCKET")}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait() // the exit code is asked for later
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("kvd %s said:\n%s", strings.Join(args, " "), p.output)
		}
	})
	return p
}

// code waits for the end and returns the exit code.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("kvd goes on")
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// says waits until the process has said something; its output comes late,
// through a pipe.
func (p *process) says(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.output.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("kvd never says %s", text)
		}
	}
}

// lastLine is the one line that says why a process ended.
func (p *process) lastLine() string {
	lines := strings.Split(strings.TrimSpace(p.output.String()), "\n")
	return lines[len(lines)-1]
}

func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := porttest.Claim()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", port)
}

// site is where a member lives: its directory and addresses.
type site struct{ dir, client, peer string }

func newSite(t *testing.T) site {
	return site{filepath.Join(t.TempDir(), "data"), freeAddr(t), freeAddr(t)}
}

func (s site) args(more ...string) []string {
	return append([]string{
		"--data-dir=" + s.dir, "--listen-client-urls=http://" + s.client, "--advertise-client-urls=http://" + s.client,
		"--listen-peer-urls=http://" + s.peer, "--initial-advertise-peer-urls=http://" + s.peer,
	}, more...)
}

func (s site) start(t *testing.T, more ...string) *process {
	t.Helper()
	return start(t, "", s.args(more...)...)
}

// await waits until the member is healthy.
func (s site) await(t *testing.T, p *process) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if body, err := fetch(s.client, "/health"); err == nil && strings.Contains(body, `"true"`) {
			return
		}
		select {
		case <-p.done:
			t.Fatalf("kvd ended with %d", p.cmd.ProcessState.ExitCode())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("kvd does not become healthy")
		}
	}
}

func fetch(addr, path string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func put(t *testing.T, addr, key, value string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := pb.NewKVClient(dial(t, addr)).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func get(t *testing.T, addr, key string) (string, int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := pb.NewKVClient(dial(t, addr)).Range(ctx, &pb.RangeRequest{Key: []byte(key)}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return "", 0
	}
	return string(resp.Kvs[0].Value), resp.Kvs[0].ModRevision
}

// TestSingleMemberEndToEnd kills a member between writes: what was acknowledged
// is there afterwards, with its revision; a stop is clean.
func TestSingleMemberEndToEnd(t *testing.T) {
	s := newSite(t)
	revisions := map[string]int64{}
	for round := range 4 {
		p := s.start(t)
		s.await(t, p)
		p.says(`"msg":"ready to serve client requests"`)
		for key, rev := range revisions {
			if value, mod := get(t, s.client, key); value != key || mod != rev {
				t.Errorf("round %d: %s is %q at %d, was acknowledged at %d", round, key, value, mod, rev)
			}
		}
		for i := range 20 {
			key := fmt.Sprintf("k%d-%d", round, i)
			revisions[key] = put(t, s.client, key, key)
		}
		if round%2 == 0 {
			p.signal(syscall.SIGKILL)
			p.code()
			continue
		}
		p.signal(syscall.SIGTERM)
		if code := p.code(); code != exitOK {
			t.Fatalf("a stop on request gives exit code %d", code)
		}
	}
	if info, err := os.Stat(s.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory's mode: %v, %v", info.Mode(), err)
	}
}

// TestEnvtestStart starts kvd as envtest starts etcd, and under systemd's eyes.
func TestEnvtestStart(t *testing.T) {
	s, socket := newSite(t), filepath.Join(t.TempDir(), "n")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	p := start(t, "", "--data-dir="+s.dir, "--unsafe-no-fsync=true", "--listen-peer-urls=http://localhost:0",
		"--listen-client-urls=http://"+s.client, "--advertise-client-urls=http://"+s.client)
	s.await(t, p)
	put(t, s.client, "a", "b")
	manager.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 100)
	if n, err := manager.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("systemd was told %q, %v", b[:n], err)
	}
}

// TestNoFlagsAtAll needs the default ports; where they are taken, the exit code
// must say so.
func TestNoFlagsAtAll(t *testing.T) {
	dir := t.TempDir()
	s := site{filepath.Join(dir, "default.kvd"), "localhost:2379", "localhost:2380"}
	taken := portTaken(s.client) || portTaken(s.peer)
	p := start(t, dir)
	if taken {
		if code := p.code(); code != exitListen {
			t.Errorf("exit code %d with taken ports, want %d", code, exitListen)
		}
		return
	}
	s.await(t, p)
	put(t, s.client, "a", "b")
	if _, err := os.Stat(filepath.Join(s.dir, "member", "snap", "db")); err != nil {
		t.Error(err)
	}
	p.signal(syscall.SIGINT)
	if code := p.code(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func portTaken(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return true
	}
	l.Close()
	return false
}

// TestExitCodes starts kvd where it must not run. Each refusal is one line with
// the reason, a documented code, and leaves the directory as it was.
func TestExitCodes(t *testing.T) {
	used := newSite(t)
	initial := "--initial-cluster=a=http://" + used.peer + ",b=http://127.0.0.1:1"
	p := used.start(t, "--name=solo", "--initial-cluster-token=mine")
	used.await(t, p)
	put(t, used.client, "kept", "kept")

	elsewhere := func() site { return site{used.dir, freeAddr(t), freeAddr(t)} }
	second := elsewhere().start(t, "--name=solo")
	expect(t, "a second kvd on the directory", second, exitInUse, "in use by another process")
	expect(t, "the same kvd again", used.start(t, "--name=solo"), exitInUse, "in use by another process")
	busy := site{filepath.Join(t.TempDir(), "other"), used.client, freeAddr(t)}
	expect(t, "a taken port", busy.start(t), exitListen, "cannot listen on http://"+used.client)
	p.signal(syscall.SIGTERM)
	p.code()

	expect(t, "another cluster's token", used.start(t, "--name=solo", "--initial-cluster-token=theirs"), exitNotOurs, "belongs to another cluster")
	expect(t, "another cluster's list", used.start(t, "--name=x", "--initial-cluster=x=http://127.0.0.1:1"), exitNotOurs, "belongs to another cluster")
	expect(t, "another member's directory", used.start(t, "--name=a", initial+",solo=http://127.0.0.1:2"), exitNotOurs, "belongs to another member")
	expect(t, "an unknown flag", used.start(t, "--nmae=x"), exitConfig, "did you mean --name?")
	expect(t, "a missing URL", start(t, "", "--listen-client-urls=http://127.0.0.1:1"), exitConfig, "--advertise-client-urls is required")
	expect(t, "joining", newSite(t).start(t, "--initial-cluster-state=existing"), exitConfig, "cannot fetch cluster info from peer urls")

	etcd := newSite(t)
	mustWrite(t, filepath.Join(etcd.dir, "member", "wal", "0000000000000000-0000000000000000.wal"), "log")
	expect(t, "etcd's directory", etcd.start(t), exitNotOurs, "is etcd's")

	identity := filepath.Join(used.dir, "member", "identity")
	good, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, identity, strings.Replace(string(good), "solo", "sole", 1))
	expect(t, "a damaged identity", used.start(t), exitDamaged, "its checksum does not match")
	if err := os.Remove(identity); err != nil {
		t.Fatal(err)
	}
	expect(t, "a lost identity", used.start(t), exitNotOurs, "was lost")
	mustWrite(t, identity, string(good))

	wal := filepath.Join(used.dir, "member", "wal")
	if err := os.Rename(wal, wal+".away"); err != nil {
		t.Fatal(err)
	}
	expect(t, "a lost log", used.start(t, "--name=solo"), exitDamaged, "there is no log")
	if err := os.Rename(wal+".away", wal); err != nil { // fails if the refusal had made a new one
		t.Fatal(err)
	}
	p = used.start(t, "--name=solo")
	used.await(t, p)
	if value, _ := get(t, used.client, "kept"); value != "kept" {
		t.Errorf("after all refusals the value is %q", value)
	}
}

func expect(t *testing.T, what string, p *process, code int, line string) {
	t.Helper()
	if got := p.code(); got != code {
		t.Errorf("%s: exit code %d, want %d", what, got, code)
	}
	if last := p.lastLine(); !strings.HasPrefix(last, "kvd: ") || !strings.Contains(last, line) {
		t.Errorf("%s: last line %q, want %q", what, last, line)
	}
}

func mustWrite(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestStorageDamage turns a byte in the middle of the log.
func TestStorageDamage(t *testing.T) {
	s := newSite(t)
	p := s.start(t)
	s.await(t, p)
	for i := range 50 {
		put(t, s.client, fmt.Sprint(i), strings.Repeat("x", 500))
	}
	p.signal(syscall.SIGKILL)
	p.code()
	segments, err := filepath.Glob(filepath.Join(s.dir, "member", "wal", "*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("%v, %v", segments, err)
	}
	turned := false
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, bytes.Repeat([]byte("x"), 400)); at > 0 {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte("y"), int64(at)+100)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			turned = true
			break
		}
	}
	if !turned {
		t.Fatal("no value was found in the log")
	}
	expect(t, "a damaged log", s.start(t), exitDamaged, "damage")
}

func TestSecondSignalQuits(t *testing.T) {
	// A member that waits for its cluster; its stop takes a moment at least.
	s := newSite(t)
	p := s.start(t, "--name=a", "--initial-cluster=a=http://"+s.peer+",b=http://127.0.0.1:1,c=http://127.0.0.1:2", "--election-timeout=50000", "--heartbeat-interval=1000")
	p.says("starting kvd")
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGINT)
	// Which of the two wins is up to the machine; both must end the process.
	if code := p.code(); code != exitOK && code != exitSignalled+int(syscall.SIGINT) && code != exitSignalled+int(syscall.SIGTERM) {
		t.Errorf("exit code %d", code)
	}
}

// TestFailingDisk lets the disk fill up or a sync fail under a running member.
// It must stop with the code for it, and go on where it was once that is mended.
func TestFailingDisk(t *testing.T) {
	for _, c := range []struct {
		name string
		rule vfs.Rule
		code int
	}{
		{"full", vfs.Rule{Op: vfs.OpWrite, Nth: 1, Times: 1 << 20, Err: vfs.ErrNoSpace}, exitNoSpace},
		{"a failed sync", vfs.Rule{Op: vfs.OpSync, Nth: 1, Times: 1 << 20, Err: &os.PathError{Op: "sync", Path: "log", Err: syscall.EIO}}, exitStorage},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			disk := vfs.NewFault(vfs.OS())
			ended := serveOn(t, s, disk)
			put(t, s.client, "a", "b")
			disk.SetRules(c.rule)
			go unanswered(s.client)
			select {
			case err := <-ended:
				if code := exitCode(err); code != c.code {
					t.Errorf("code %d for %v", code, err)
				}
			case <-time.After(patience):
				t.Fatal("the member goes on")
			}
			p := s.start(t)
			s.await(t, p)
			if value, _ := get(t, s.client, "a"); value != "b" {
				t.Errorf("after the fault the value is %q", value)
			}
		})
	}
}

// serveOn runs a member in this process on the given file system.
func serveOn(t *testing.T, s site, fs vfs.FS) <-chan error {
	t.Helper()
	conf, err := load(s.args(), nil, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg := conf.server
	cfg.FS, cfg.Clock, cfg.Seed = fs, clock.System(), 1
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	srv, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(context.Background()) }()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if body, err := fetch(s.client, "/health"); err == nil && strings.Contains(body, `"true"`) {
			return ended
		}
		if time.Now().After(deadline) {
			t.Fatal("the member does not become healthy")
		}
	}
}

// unanswered writes and expects nothing of it.
func unanswered(addr string) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("lost"), Value: []byte("?")})
}

func TestExitCodeOfErrors(t *testing.T) {
	for err, want := range map[error]int{
		nil: exitOK, errors.New("x"): exitOther, fmt.Errorf("write: %w", syscall.ENOSPC): exitNoSpace,
		&os.PathError{Op: "sync", Err: syscall.EIO}: exitStorage, &os.PathError{Op: "write", Err: syscall.ENOSPC}: exitNoSpace,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}
