package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Member is one process of a cluster. Its methods are for one goroutine at a
// time, except those that only read.
type Member struct {
	Name     string
	Endpoint string // host:port of the client listener
	PeerURL  string
	Dir      string      // holds data/ and log
	TLS      *tls.Config // of a client that the member accepts; nil: no TLS
	scheme   string
	sys      System
	args     []string

	mu struct {
		sync.Mutex
		cmd  *exec.Cmd
		done chan struct{} // closed when the process has been waited for
		err  error
	}
}

// ClientURL is the member's endpoint as a URL.
func (m *Member) ClientURL() string { return m.scheme + "://" + m.Endpoint }

// DataDir is the member's data directory.
func (m *Member) DataDir() string { return filepath.Join(m.Dir, "data") }

// LogPath is the file that holds what the process printed, over all its lives.
func (m *Member) LogPath() string { return filepath.Join(m.Dir, "log") }

// Start runs the process and returns at once; Ready waits until it serves.
func (m *Member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	log, err := os.OpenFile(m.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(m.sys.Binary, m.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = m.Dir
	// A member never outlives the suite that started it, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	m.mu.cmd, m.mu.done = cmd, done
	go func() {
		err := cmd.Wait()
		m.mu.Lock()
		m.mu.err = err
		m.mu.Unlock()
		close(done)
	}()
	return nil
}

// PID is the running process, or 0.
func (m *Member) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.cmd == nil {
		return 0
	}
	select {
	case <-m.mu.done:
		return 0
	default:
		return m.mu.cmd.Process.Pid
	}
}

// Exited is closed when the current process has ended.
func (m *Member) Exited() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.done
}

// Kill ends the process with SIGKILL and waits for it.
func (m *Member) Kill() { m.signal(syscall.SIGKILL, 10*time.Second) }

// Stop asks the process to end, and kills it when it does not within the
// timeout, which is an error.
func (m *Member) Stop(timeout time.Duration) error {
	if m.PID() == 0 {
		return nil
	}
	if m.signal(syscall.SIGTERM, timeout) {
		return nil
	}
	m.Kill()
	return fmt.Errorf("%s did not stop within %v of SIGTERM", m.Name, timeout)
}

// Signal sends a signal and does not wait.
func (m *Member) Signal(sig syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.cmd == nil {
		return errors.New("not started")
	}
	return m.mu.cmd.Process.Signal(sig)
}

func (m *Member) signal(sig syscall.Signal, timeout time.Duration) bool {
	if m.PID() == 0 {
		return true
	}
	done := m.Exited()
	_ = m.Signal(sig)
	select {
	case <-done:
		return true
	case <-time.After(timeout):
		return false
	}
}

// Dial connects to the member, without waiting for the connection.
func (m *Member) Dial(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	if m.TLS != nil {
		opts = append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(m.TLS))}, opts...)
	}
	return Dial(m.Endpoint, opts...)
}

// useCerts makes Dial show a certificate of a client whose name is no user's.
func (m *Member) useCerts(c *Certs) (err error) {
	if c != nil {
		_, _, m.TLS, err = c.Client("compat-client")
	}
	return err
}

// Dial connects to an endpoint with the limits every suite uses.
func Dial(endpoint string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	all := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)),
	}, opts...)
	return grpc.NewClient("passthrough:///"+endpoint, all...)
}

// Ready waits until the member answers a linearizable read.
func (m *Member) Ready(ctx context.Context) error {
	conn, err := m.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	for {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := kv.Range(call, &pb.RangeRequest{Key: []byte("ready")}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-m.Exited():
			return fmt.Errorf("%s ended before it was ready, see %s", m.Name, m.LogPath())
		case <-ctx.Done():
			return fmt.Errorf("%s not ready: %w, see %s", m.Name, err, m.LogPath())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Status asks the member for its status.
func (m *Member) Status(ctx context.Context) (*pb.StatusResponse, error) {
	conn, err := m.Dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
}
