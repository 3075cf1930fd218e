package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-io/keelson/client"
)

func (a *app) lockCommand() *cobra.Command {
	var ttl int64
	c := verb("lock NAME [-- COMMAND ARG…]", "Hold a lock until interrupted, or while a command runs",
		"  kvctl lock backup -- ./backup.sh", cobra.MinimumNArgs(1),
		func(ctx context.Context, args []string) error { return a.lock(ctx, args[0], args[1:], ttl) })
	c.Long = c.Short + `.

The command finds the lock's key in KVCTL_LOCK_KEY (ETCD_LOCK_KEY) and a fencing token in KVCTL_LOCK_REV (ETCD_LOCK_REV): the
revision at which the lock was asked for, larger for each later holder. Give the token to what the lock protects, and let it refuse
smaller ones: a lock alone cannot stop a holder that was paused for longer than its lease lives. If the lease is lost, the command
is killed. kvctl exits with the command's code.`
	c.Flags().Int64Var(&ttl, "ttl", 10, "after this many `seconds` without a sign of life the lock is free")
	return c
}

func (a *app) electCommand() *cobra.Command {
	var ttl int64
	var listen bool
	c := verb("elect NAME [PROPOSAL]", "Be a candidate for leadership, or watch who leads", "  kvctl elect scheduler node-1\n  kvctl elect scheduler --listen",
		cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
			if listen {
				return a.leaders(ctx, args[0])
			}
			if len(args) < 2 {
				return usage("elect: a candidate needs a PROPOSAL; --listen watches")
			}
			return a.campaign(ctx, args[0], args[1], ttl)
		})
	c.Flags().BoolVarP(&listen, "listen", "l", false, "show each leader's proposal")
	c.Flags().Int64Var(&ttl, "ttl", 10, "after this many `seconds` without a sign of life another one leads")
	return c
}

// session is a lease of its own that is kept alive until the command ends. It is
// asked for in haste, and kept with patience.
func (a *app) session(ctx context.Context, ttl int64) (s *client.Session, end func(), err error) {
	var lease client.Lease
	err = a.call(ctx, "grant a lease", func(ctx context.Context, r *remote) (err error) {
		lease, err = r.Grant(ctx, time.Duration(ttl)*time.Second)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	r, err := a.patient()
	if err == nil {
		s, err = r.AdoptSession(ctx, lease.ID)
	}
	if err != nil {
		return nil, nil, classify("keep the lease", err, a.endpoints...)
	}
	return s, func() {
		ctx, cancel := a.brief(context.WithoutCancel(ctx))
		defer cancel()
		_ = s.Close(ctx) // else the lease ends when its time is up
	}, nil
}

// ended is the outcome when what a session held was lost, or given up.
func ended(ctx context.Context, did string, held context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return leaseLost(did, context.Cause(held))
}

func (a *app) lock(ctx context.Context, name string, command []string, ttl int64) error {
	did := "hold lock " + name
	s, end, err := a.session(ctx, ttl)
	if err != nil {
		return err
	}
	defer end()
	l, err := s.Lock(ctx, name)
	if err != nil {
		return classify("wait for lock "+name, leaseLost("", err), a.endpoints...)
	}
	held := l.Context()
	if len(command) == 0 {
		fmt.Fprintln(a.out, l.Key)
		select {
		case <-held.Done():
		case <-ctx.Done():
		}
		return ended(ctx, did, held)
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(held, stop)()
	cmd := exec.CommandContext(running, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.errs
	cmd.Env = append(os.Environ(),
		"KVCTL_LOCK_KEY="+l.Key, "ETCD_LOCK_KEY="+l.Key, fmt.Sprintf("KVCTL_LOCK_REV=%d", l.Token), fmt.Sprintf("ETCD_LOCK_REV=%d", l.Token))
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case running.Err() != nil:
		return ended(ctx, did, held)
	case errors.As(err, &exit):
		return &failure{code: exit.ExitCode()}
	case err != nil:
		return fileFailed("run "+command[0], err)
	}
	return nil
}

func (a *app) campaign(ctx context.Context, name, proposal string, ttl int64) error {
	s, end, err := a.session(ctx, ttl)
	if err != nil {
		return err
	}
	defer end()
	l, err := s.Campaign(ctx, name, []byte(proposal))
	if err != nil {
		return classify("wait for the leadership of "+name, leaseLost("", err), a.endpoints...)
	}
	fmt.Fprintf(a.out, "%s\n%s\n", l.Key, proposal)
	select {
	case <-l.Context().Done():
	case <-ctx.Done():
	}
	return ended(ctx, "lead "+name, l.Context())
}

// leaders shows each leader until interrupted.
func (a *app) leaders(ctx context.Context, name string) error {
	did := "ask who leads " + name
	if _, err := a.now(ctx, did, client.Prefix(name+"/")); err != nil {
		return err
	}
	r, err := a.patient()
	if err != nil {
		return err
	}
	for leader, err := range r.Leaders(ctx, name) {
		if err != nil {
			return classify(did, err, a.endpoints...)
		}
		if leader.Exists() {
			a.pair(a.out, onWire(leader), false)
		}
	}
	return nil
}
