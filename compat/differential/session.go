package differential

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/keelson-io/keelson/compat/cluster"
)

// Session starts pairs of fresh clusters and runs sequences against them.
type Session struct {
	Left, Right cluster.System
	Members     int
	Auth        bool   // generated requests switch authentication on, and come from many users
	TLS         bool   // clients and members speak TLS
	Dir         string // for data directories; removed after each run
	Differences int    // per run
	Progress    func(done int)
}

// slowLeases makes the shortest lease live for eight seconds, so that one that is
// revoked at once never expires first on a busy machine.
var slowLeases = []string{"--heartbeat-interval=500", "--election-timeout=5000"}

// quickLogins makes logins cheap and their tokens last for the whole run.
var quickLogins = []string{"--bcrypt-cost=4", "--auth-token-ttl=86400"}

// noThrottle switches off what only kvd has: it slows the guessing of passwords.
const noThrottle = "--auth-free-failures=0"

// Seed runs the first n operations of a seed.
func (s Session) Seed(ctx context.Context, seed uint64, n int) (Result, error) {
	g := NewGenerator(seed, s.Auth)
	done := 0
	return s.run(ctx, func() (Op, bool) {
		if done++; done > n {
			return Op{}, false
		}
		return g.Next(), true
	})
}

// Replay runs the given operations.
func (s Session) Replay(ctx context.Context, ops []Op) (Result, error) {
	done := 0
	return s.run(ctx, func() (Op, bool) {
		if done == len(ops) {
			return Op{}, false
		}
		done++
		return ops[done-1], true
	})
}

func (s Session) run(ctx context.Context, next func() (Op, bool)) (Result, error) {
	dir, err := os.MkdirTemp(s.Dir, "differential")
	if err != nil {
		return Result{}, err
	}
	opt := cluster.Options{Members: s.Members, NoSync: true, Args: slowLeases}
	if s.TLS {
		if opt.Certs, err = cluster.NewCerts(dir + "/certs"); err != nil {
			return Result{}, err
		}
	}
	var pair [2]*cluster.Cluster
	for i, sys := range []cluster.System{s.Left, s.Right} {
		opt.Dir = fmt.Sprintf("%s/%d", dir, i)
		if s.Auth {
			opt.Args = slices.Concat(slowLeases, quickLogins)
			if sys.Name == "kvd" {
				opt.Args = append(opt.Args, noThrottle)
			}
		}
		c, err := cluster.Start(ctx, sys, opt)
		if err != nil {
			return Result{}, err // the directory stays: it holds the log
		}
		defer c.Close()
		pair[i] = c
	}
	res, err := Run(ctx, Config{Left: pair[0], Right: pair[1], Auth: s.Auth, Next: next, MaxDifferences: s.Differences, Progress: s.Progress})
	for _, c := range pair {
		for _, m := range c.Members {
			if m.PID() == 0 {
				return res, fmt.Errorf("%s of %s ended during the run, see %s (%w)", m.Name, c.System.Name, m.LogPath(), err)
			}
		}
	}
	if err == nil {
		for _, c := range pair {
			c.Close()
		}
		err = os.RemoveAll(dir)
	}
	return res, err
}
