package resource

import (
	"context"
	"log/slog"
	"sync"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Run follows the store and does the controllers' work until ctx ends. It is
// called once.
func (l *Layer) Run(ctx context.Context) {
	var wait sync.WaitGroup
	wait.Go(func() { l.feed.run(ctx) })
	wait.Go(func() { l.followDefinitions(ctx) })
	wait.Go(func() { l.feelPulse(ctx) })
	wait.Go(func() {
		l.bootstrap(ctx)
		l.control(ctx)
	})
	wait.Wait()
}

// immortal are the namespaces that every cluster has.
var immortal = []string{"default", "kube-node-lease", "kube-public", "kube-system"}

// bootstrap makes what a cluster begins with, and does not give up. Every member
// tries; the first one does it.
func (l *Layer) bootstrap(ctx context.Context) {
	for ctx.Err() == nil {
		err := l.bootstrapOnce(ctx)
		if err == nil {
			return
		}
		l.log.Info("what a cluster begins with cannot be made yet", slog.Any("error", err))
		sleep(ctx, l.clock, restartPause)
	}
}

func (l *Layer) bootstrapOnce(ctx context.Context) error {
	for _, name := range immortal {
		if err := l.ensure(ctx, l.namespaceKind(), "", name, object.Object{}); err != nil {
			return err
		}
	}
	if l.cfg.Authorize {
		return l.bootstrapRights(ctx)
	}
	return nil
}

// ensure creates an object unless it is there.
func (l *Layer) ensure(ctx context.Context, k *Kind, namespace, name string, o object.Object) error {
	o = object.Copy(o)
	if err := identify(k, o, namespace); err != nil {
		return err
	}
	object.Set(o, name, "metadata", "name")
	o, err := prepareCreate(k, o, l.newUID(), l.clock.Now(), nil)
	if err != nil {
		return err
	}
	_, err = l.write(ctx, k, k.key(namespace, name), false, func(cur *current) (*step, error) {
		if cur != nil {
			return nil, alreadyExists(k, name)
		}
		return &step{store: o}, nil
	})
	if f := asFailure(err); f != nil && f.Reason == "AlreadyExists" {
		return nil
	}
	return err
}
