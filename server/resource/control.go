package resource

import (
	"context"
	"time"
)

// controlPause lies between two rounds of the controllers: many changes at once
// are one round.
const controlPause = 100 * time.Millisecond

// controlEvery is when a round is made although nothing seems to have happened.
const controlEvery = 30 * time.Second

// control does the controllers' rounds until ctx ends, while this member leads. A
// round is made when something happened that a controller may care about.
func (l *Layer) control(ctx context.Context) {
	var did uint64
	var at time.Time
	for ctx.Err() == nil {
		sleep(ctx, l.clock, controlPause)
		now := l.clock.Now()
		todo := l.feed.concerns.Load()
		if !l.store.Leads() || todo == did && now.Sub(at) < controlEvery && !at.IsZero() {
			continue
		}
		if err := l.controlOnce(ctx); err != nil {
			if ctx.Err() == nil {
				l.log.Info("a round of the controllers ended early", "error", err)
			}
			continue
		}
		did, at = todo, now
	}
}

func (l *Layer) controlOnce(ctx context.Context) error {
	for _, round := range []func(context.Context) error{l.collectGarbage, l.emptyNamespaces, l.undefine, l.recount} {
		if err := round(ctx); err != nil {
			return err
		}
	}
	return nil
}

// concerns reports whether a change may give a controller something to do: an
// object goes or has gone, has owners, or is a quota.
func (c *change) concerns(k *Kind) bool {
	switch {
	case c.new == nil:
		return true
	case c.new.meta.DeletionTimestamp != "":
		return true
	case len(c.new.meta.Owners) > 0:
		return c.old == nil || len(c.old.meta.Owners) != len(c.new.meta.Owners)
	}
	return k.Group == "" && k.Plural == "resourcequotas"
}
