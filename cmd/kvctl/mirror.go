package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keelson-io/keelson/client"
)

// mirroring copies keys of one cluster into another and follows their changes.
// Values are the same; revisions and leases are not (see migrate).
type mirroring struct {
	from, to       *app
	prefix, target string
	rev            client.Revision
	copied         int64
}

func (a *app) mirrorCommand() *cobra.Command {
	m := &mirroring{from: a}
	var dest global
	var once bool
	c := verb("mirror DESTINATION", "Copy keys into another cluster and follow their changes, until interrupted",
		"  kvctl mirror 10.0.9.1:2379 --prefix /config/ --dest-prefix /copy/", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			g := a.global
			g.endpoints = strings.Split(args[0], ",")
			g.cert, g.key, g.cacert, g.user, g.password, g.token = dest.cert, dest.key, dest.cacert, dest.user, dest.password, ""
			m.to = &app{world: a.world, lines: a.lines, global: g}
			defer m.to.close()
			return m.run(ctx, once)
		})
	c.Aliases = []string{"make-mirror"}
	f := c.Flags()
	f.StringVar(&m.prefix, "prefix", "", "only keys that begin with this")
	f.StringVar(&m.target, "dest-prefix", "", "what takes the prefix's place in the destination (default: the same)")
	f.Int64Var((*int64)(&m.rev), "rev", 0, "copy as of this revision, and follow from there")
	f.BoolVar(&once, "once", false, "copy, and do not follow")
	f.StringVar(&dest.cert, "dest-cert", "", "certificate `file` for the destination")
	f.StringVar(&dest.key, "dest-key", "", "its key `file`")
	f.StringVar(&dest.cacert, "dest-cacert", "", "CA `file` for the destination")
	f.StringVar(&dest.user, "dest-user", "", "user of the destination")
	f.StringVar(&dest.password, "dest-password", "", "password of that user")
	return c
}

func (m *mirroring) run(ctx context.Context, once bool) error {
	if m.target == "" {
		m.target = m.prefix
	}
	if err := m.copy(ctx); err != nil {
		return err
	}
	fmt.Fprintf(m.from.out, "copied %d keys at revision %d\n", m.copied, m.rev)
	if once {
		return nil
	}
	err := m.follow(ctx)
	if ctx.Err() != nil {
		fmt.Fprintf(m.from.out, "made %d changes, up to revision %d\n", m.copied, m.rev)
		return nil
	}
	if errors.Is(err, client.ErrCompacted) {
		return checkFailed("mirror", errFellBehind, "begin again")
	}
	return classify("mirror", err, m.from.endpoints...)
}

// copy reads all at one revision.
func (m *mirroring) copy(ctx context.Context) error {
	if _, err := m.from.now(ctx, "mirror: read", client.Prefix(m.prefix)); err != nil {
		return err
	}
	if _, err := m.to.now(ctx, "mirror: write", client.Key(m.target+"/")); err != nil { // is anybody there?
		return err
	}
	from, err := m.from.patient()
	if err != nil {
		return err
	}
	for kv, err := range from.Scan(ctx, client.Prefix(m.prefix), client.AtRevision(m.rev), client.ReadRevision(&m.rev)) {
		if err != nil {
			return classify("mirror: read", err, m.from.endpoints...)
		}
		if err := m.apply(ctx, []client.Event{{KV: kv}}); err != nil {
			return err
		}
	}
	return nil
}

// follow makes each change of the source in the destination, too.
func (m *mirroring) follow(ctx context.Context) error {
	from, err := m.from.patient()
	if err != nil {
		return err
	}
	var group []client.Event // of one revision
	for ev, err := range from.Watch(ctx, client.Prefix(m.prefix), client.After(m.rev)) {
		if err != nil {
			return err
		}
		if group = append(group, ev); ev.More {
			continue
		}
		if err := m.apply(ctx, group); err != nil {
			return err
		}
		m.rev, group = ev.Revision, nil
	}
	return nil
}

// apply makes the changes of one revision of the source in one transaction. A
// repetition changes nothing, so an unknown outcome is no end.
func (m *mirroring) apply(ctx context.Context, events []client.Event) error {
	to, err := m.to.patient()
	if err != nil {
		return err
	}
	txn := to.Txn()
	for _, ev := range events {
		key := m.target + strings.TrimPrefix(ev.KV.Key, m.prefix)
		if ev.Type == client.EventDelete {
			txn.Then(client.OpDelete(client.Key(key)))
		} else {
			txn.Then(client.OpPut(key, ev.KV.Value))
		}
	}
	m.copied += int64(len(events))
	for {
		if _, err = txn.Commit(ctx); !errors.Is(err, client.ErrUnknownOutcome) || ctx.Err() != nil {
			return classify("mirror: write", err, m.to.endpoints...)
		}
	}
}
