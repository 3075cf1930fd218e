package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keelson-io/keelson/server/porttest"
)

// Token is every cluster's --initial-cluster-token.
const Token = "compat"

// Options say how a cluster is started.
type Options struct {
	Members int                  // 1 or 3
	Dir     string               // members' directories are made below it
	Args    []string             // further flags, for every member
	ArgsOf  func(i int) []string // further flags of one member; nil: none
	NoSync  bool                 // do not sync writes: for suites that compare answers only
	Adverts string               // advertised client URL instead of the real one, for tests of it
	Certs   *Certs               // nil: no TLS
	// Prepare, unless it is nil, is called before a member starts for the first
	// time; initial is its --initial-cluster.
	Prepare func(m *Member, initial string) error
}

// Cluster is a set of members started together.
type Cluster struct {
	System  System
	Members []*Member
}

// Start starts all members and waits until each answers a linearizable read. A
// start that fails because another process took a port in between is repeated.
func Start(ctx context.Context, sys System, opt Options) (*Cluster, error) {
	var err error
	for attempt := range 3 {
		var c *Cluster
		o := opt
		o.Dir = filepath.Join(opt.Dir, fmt.Sprintf("%s%d", sys.Name, attempt))
		if c, err = start(ctx, sys, o); err == nil {
			return c, nil
		}
		c.Close()
		if log := c.logs(); !strings.Contains(log, "address already in use") {
			break
		}
	}
	return nil, err
}

func start(ctx context.Context, sys System, opt Options) (*Cluster, error) {
	c := &Cluster{System: sys}
	if opt.Members == 0 {
		opt.Members = 1
	}
	var initial []string
	for i := range opt.Members {
		client, err := porttest.Claim()
		if err != nil {
			return c, err
		}
		peer, err := porttest.Claim()
		if err != nil {
			return c, err
		}
		m := &Member{
			Process:  Process{Name: fmt.Sprintf("m%d", i+1), Binary: sys.Binary},
			Endpoint: fmt.Sprintf("127.0.0.1:%d", client),
			PeerURL:  fmt.Sprintf("%s://127.0.0.1:%d", opt.scheme(), peer),
			scheme:   opt.scheme(),
		}
		if err := m.useCerts(opt.Certs); err != nil {
			return c, err
		}
		m.Dir = filepath.Join(opt.Dir, m.Name)
		if err := os.MkdirAll(m.Dir, 0o755); err != nil {
			return c, err
		}
		c.Members = append(c.Members, m)
		initial = append(initial, m.Name+"="+m.PeerURL)
	}
	for i, m := range c.Members {
		m.Args = memberArgs(m, opt, strings.Join(initial, ","))
		if opt.ArgsOf != nil {
			m.Args = append(m.Args, opt.ArgsOf(i)...)
		}
		if opt.Prepare != nil {
			if err := opt.Prepare(m, strings.Join(initial, ",")); err != nil {
				return c, err
			}
		}
		if err := m.Start(); err != nil {
			return c, err
		}
	}
	return c, c.Ready(ctx)
}

func (o Options) scheme() string {
	if o.Certs != nil {
		return "https"
	}
	return "http"
}

func memberArgs(m *Member, opt Options, initial string) []string {
	advertise := m.ClientURL()
	if opt.Adverts != "" {
		advertise = opt.Adverts
	}
	args := []string{
		"--name", m.Name, "--data-dir", m.DataDir(),
		"--listen-client-urls", m.ClientURL(), "--advertise-client-urls", advertise,
		"--listen-peer-urls", m.PeerURL, "--initial-advertise-peer-urls", m.PeerURL,
		"--initial-cluster", initial, "--initial-cluster-state", "new",
		"--initial-cluster-token", Token, "--log-level", "warn",
	}
	if opt.Certs != nil {
		args = append(args, opt.Certs.args()...)
	}
	if opt.NoSync {
		args = append(args, "--unsafe-no-fsync")
	}
	return append(args, opt.Args...)
}

// Ready waits until every running member answers a linearizable read.
func (c *Cluster) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for _, m := range c.Members {
		if m.PID() == 0 {
			return fmt.Errorf("%s is not running, see %s", m.Name, m.LogPath())
		}
		if err := m.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Endpoints are the client endpoints of all members.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.Members {
		out = append(out, m.Endpoint)
	}
	return out
}

// Leader asks the members who leads, until one that runs says so of itself.
func (c *Cluster) Leader(ctx context.Context) (*Member, error) {
	for {
		for _, m := range c.Members {
			if m.PID() == 0 {
				continue
			}
			call, cancel := context.WithTimeout(ctx, time.Second)
			s, err := m.Status(call)
			cancel()
			if err == nil && s.Leader != 0 && s.Leader == s.Header.GetMemberId() {
				return m, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no leader of %s found: %w", c.System.Name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close kills every member.
func (c *Cluster) Close() {
	for _, m := range c.Members {
		m.Kill()
	}
}

func (c *Cluster) logs() string {
	var b strings.Builder
	for _, m := range c.Members {
		data, _ := os.ReadFile(m.LogPath())
		b.Write(data)
	}
	return b.String()
}
