package resource

import (
	"context"
	"net/http"

	"github.com/keelson-io/keelson/server/resource/object"
)

// collectGarbage does one round of the garbage collector.
func (l *Layer) collectGarbage(ctx context.Context) error {
	all, err := l.everyObject(ctx)
	if err != nil {
		return err
	}
	cat := l.catalog.Load()
	known := func(o object.Owner) bool { return cat.named(o.APIVersion, o.Kind) != nil }
	for _, a := range garbage(all, known) {
		if err := l.actOn(ctx, a); err != nil && !isGone(err) {
			l.log.Info("an object's owners could not be followed", "object", a.on.kind.Prefix+a.on.entry.key, "error", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// everyObject reads the caches of all kinds that can be deleted, as fresh as the
// cluster is.
func (l *Layer) everyObject(ctx context.Context) ([]node, error) {
	applied, err := l.upToDate(ctx)
	if err != nil {
		return nil, err
	}
	var all []node
	for _, k := range l.catalog.Load().collections() {
		c, err := l.feed.collection(ctx, k)
		if err != nil {
			return nil, err
		}
		for _, e := range c.snapshot(applied).entries {
			all = append(all, node{k, e})
		}
	}
	return all, nil
}

func isGone(err error) bool {
	f := asFailure(err)
	return f != nil && (f.Code == http.StatusNotFound || f.Code == http.StatusConflict)
}

func (l *Layer) actOn(ctx context.Context, a act) error {
	for _, o := range a.absent {
		// Caches of different kinds are not of one moment: an owner may have come since.
		if there, err := l.ownerExists(ctx, a.on, o); err != nil || there {
			return err
		}
	}
	switch a.what {
	case actDelete:
		opts := deleteOptions{uid: a.on.entry.meta.UID, propagation: "Background"}
		switch {
		case a.foreground:
			opts.propagation = "Foreground"
		case len(a.on.entry.meta.Finalizers) > 0:
			opts.propagation = "" // what was asked for before stands
		}
		_, err := l.remove(ctx, a.on.kind, a.on.entry.meta.Namespace, a.on.entry.meta.Name, opts)
		return err
	case actOrphanRest:
		for _, d := range a.dependents {
			if err := l.amend(ctx, d, func(o object.Object) { disown(o, a.uids) }); err != nil && !isGone(err) {
				return err
			}
		}
		fallthrough
	case actRelease:
		return l.amend(ctx, a.on, func(o object.Object) { release(o, a.finalizer) })
	}
	return l.amend(ctx, a.on, func(o object.Object) { disown(o, a.uids) })
}

func (l *Layer) ownerExists(ctx context.Context, n node, o object.Owner) (bool, error) {
	k := l.catalog.Load().named(o.APIVersion, o.Kind)
	if k == nil {
		return true, nil
	}
	cur, err := l.fresh(ctx, k.key(n.entry.meta.Namespace, o.Name))
	return cur != nil && object.FindString(cur.json, "metadata", "uid") == o.UID, err
}

// amend changes an object's metadata, if it is still the same object.
func (l *Layer) amend(ctx context.Context, n node, fn func(object.Object)) error {
	k, m := n.kind, &n.entry.meta
	_, err := l.write(ctx, k, k.key(m.Namespace, m.Name), false, func(cur *current) (*step, error) {
		if cur == nil {
			return nil, notFound(k, m.Name)
		}
		o, err := cur.decoded(k)
		if err != nil {
			return nil, err
		}
		if object.String(o, "metadata", "uid") != m.UID {
			return nil, conflict(k, m.Name, "it is another object by now")
		}
		fn(o)
		tidyMeta(object.Map(o, "metadata"))
		if released(o) {
			return l.deleting(k, o)
		}
		return &step{store: o, lease: cur.lease}, nil
	})
	return err
}
