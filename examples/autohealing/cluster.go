package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// member is one kvd process.
type member struct {
	name              string
	client, peer, api string // host:port: etcd's API, the other members, Kubernetes' API
	cmd               *exec.Cmd
}

// cluster is three members with their data in a directory that goes with them. One
// goroutine at a time starts and stops members; anyone may ask who leads.
type cluster struct {
	kvd, dir string
	members  [3]*member
}

const startLimit = time.Minute

func startCluster(ctx context.Context, kvd string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "autohealing-")
	if err != nil {
		return nil, err
	}
	c := &cluster{kvd: kvd, dir: dir}
	ports, err := freePorts(3 * len(c.members))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	for i := range c.members {
		c.members[i] = &member{name: fmt.Sprintf("m%d", i+1), client: ports[3*i], peer: ports[3*i+1], api: ports[3*i+2]}
	}
	for _, m := range c.members {
		if err := c.start(m); err != nil {
			c.stop()
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if _, err := c.awaitLeader(ctx, nil); err != nil {
		log, _ := os.ReadFile(c.members[0].log(dir))
		c.stop()
		return nil, fmt.Errorf("%w; the log of m1 ends with: %s", err, log[max(0, len(log)-1000):])
	}
	return c, nil
}

// freePorts finds loopback addresses that nobody listens on.
func freePorts(n int) (out []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end, so that they differ
		out = append(out, l.Addr().String())
	}
	return out, nil
}

func (m *member) log(dir string) string { return filepath.Join(dir, m.name+".log") }

func (c *cluster) start(m *member) error {
	var all []string
	for _, o := range c.members {
		all = append(all, o.name+"=http://"+o.peer)
	}
	log, err := os.OpenFile(m.log(c.dir), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	m.cmd = exec.Command(c.kvd, "--name", m.name, "--data-dir", filepath.Join(c.dir, m.name),
		"--listen-client-urls", "http://"+m.client, "--advertise-client-urls", "http://"+m.client,
		"--listen-peer-urls", "http://"+m.peer, "--initial-advertise-peer-urls", "http://"+m.peer,
		"--initial-cluster", strings.Join(all, ","), "--listen-resource-urls", "http://"+m.api)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; we stop it ourselves
	return m.cmd.Start()
}

// kill ends a member as a power failure would. It has no time to say good-bye.
func (m *member) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait() // "signal: killed" is what was asked for
	m.cmd = nil
}

// stop ends all members and removes their data.
func (c *cluster) stop() {
	for _, m := range c.members {
		if m.cmd != nil {
			m.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	for _, m := range c.members {
		if m.cmd != nil {
			m.cmd.Wait()
		}
	}
	os.RemoveAll(c.dir)
}

func (c *cluster) apis() (out []string) {
	for _, m := range c.members {
		out = append(out, m.api)
	}
	return out
}

// awaitLeader waits until a member leads that is not the one before.
func (c *cluster) awaitLeader(ctx context.Context, before *member) (*member, error) {
	for {
		if m, _ := c.leader(ctx); m != nil && m != before {
			return m, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.New("nobody leads")
		}
	}
}

// leader asks all members who leads, and for the store's newest revision; nil: nobody
// does.
func (c *cluster) leader(ctx context.Context) (*member, string) {
	for _, m := range c.members {
		if s := m.status(ctx); s.Leader != "" && s.Leader == s.Header.MemberID {
			return m, s.Header.Revision
		}
	}
	return nil, "?"
}

// status is what etcd's status RPC tells, by its JSON gateway.
type status struct {
	Header struct {
		MemberID string `json:"member_id"`
		Revision string
	}
	Leader string
}

func (m *member) status(ctx context.Context) (s status) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.client+"/v3/maintenance/status", bytes.NewReader([]byte("{}")))
	if err != nil {
		return s
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s // it is down
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		_ = json.Unmarshal(b, &s) // then it does not lead
	}
	return s
}
