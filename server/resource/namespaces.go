package resource

import (
	"context"

	"github.com/keelson-io/keelson/server/resource/object"
)

// emptyNamespaces deletes what is in namespaces that are dying, and lets go of
// those that are empty. Nothing new comes into them: a create compares the
// namespace with what it was when it was alive.
func (l *Layer) emptyNamespaces(ctx context.Context) error {
	namespaces := l.namespaceKind()
	s, err := l.snapshot(ctx, namespaces, "")
	if err != nil {
		return err
	}
	for _, ns := range s.entries {
		if ns.meta.DeletionTimestamp == "" {
			continue
		}
		left, err := l.emptyNamespace(ctx, ns.meta.Name)
		if err != nil {
			return err
		}
		if left > 0 {
			continue
		}
		err = l.amend(ctx, node{namespaces, ns}, func(o object.Object) {
			finalizers := object.Strings(o, "spec", "finalizers")
			object.Remove(o, "spec", "finalizers")
			for _, f := range finalizers {
				if f != "kubernetes" {
					object.Set(o, append(object.List(o, "spec", "finalizers"), f), "spec", "finalizers")
				}
			}
		})
		if err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}

// emptyNamespace asks everything in a namespace to go, and returns how much is left.
func (l *Layer) emptyNamespace(ctx context.Context, name string) (left int, err error) {
	for _, k := range l.catalog.Load().collections() {
		if !k.Namespaced {
			continue
		}
		s, err := l.snapshot(ctx, k, "")
		if err != nil {
			return 0, err
		}
		n, err := l.clear(ctx, k, s.within(&Selection{kind: k, namespace: name}))
		if err != nil {
			return 0, err
		}
		left += n
	}
	return left, nil
}

// clear asks objects of a kind to go, and returns how many are left.
func (l *Layer) clear(ctx context.Context, k *Kind, entries []*entry) (left int, err error) {
	for _, e := range entries {
		if e.meta.DeletionTimestamp == "" {
			res, err := l.remove(ctx, k, e.meta.Namespace, e.meta.Name, deleteOptions{uid: e.meta.UID, propagation: "Background"})
			if err == nil && res.removed || isGone(err) {
				continue
			}
			if err != nil {
				return 0, err
			}
		}
		left++
	}
	return left, nil
}
