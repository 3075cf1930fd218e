package resource

import (
	"context"
	"errors"
	"net/http"

	"github.com/keelson-io/keelson/server/resource/object"
)

// create answers POST of a collection.
func (c *call) create() error {
	s, err := c.decodeBody()
	if err != nil {
		return err
	}
	dry, err := c.dryRun()
	if err != nil {
		return err
	}
	if err := identify(c.kind, s.object, c.Namespace); err != nil {
		return err
	}
	if err := c.validateFields(s); err != nil {
		return err
	}
	if err := c.refuseEscalation(s.object, nil); err != nil {
		return err
	}
	res, err := c.layer.insert(c, s.object, dry)
	if err != nil {
		return err
	}
	return c.sendObject(http.StatusCreated, res.json)
}

// nameChars are what generated names end with: no vowels, so that no words
// come of it.
const nameChars = "bcdfghjklmnpqrstvwxz2456789"

// maxGeneratedBase leaves room for the five characters.
const maxGeneratedBase = 58

func (l *Layer) generateName(base string) string {
	if len(base) > maxGeneratedBase {
		base = base[:maxGeneratedBase]
	}
	var b [5]byte
	l.cfg.Random(b[:])
	for i := range b {
		b[i] = nameChars[int(b[i])%len(nameChars)]
	}
	return base + string(b[:])
}

// insert stores a new object; a generated name that is taken is drawn again.
func (l *Layer) insert(c *call, o object.Object, dry bool) (*result, error) {
	base := ""
	if object.String(o, "metadata", "name") == "" {
		base = object.String(o, "metadata", "generateName")
	}
	for attempt := 1; ; attempt++ {
		if base != "" {
			object.Set(o, l.generateName(base), "metadata", "name")
		}
		res, err := l.insertNamed(c.ctx, c, o, dry)
		var f *Failure
		if base != "" && errors.As(err, &f) && f.Reason == "AlreadyExists" && attempt < maxNameAttempts {
			continue
		}
		return res, err
	}
}

func (l *Layer) insertNamed(ctx context.Context, c *call, sent object.Object, dry bool) (*result, error) {
	k := c.kind
	o, err := prepareCreate(k, sent, l.newUID(), l.clock.Now(), c.manageNew)
	if err != nil {
		return nil, err
	}
	name := object.String(o, "metadata", "name")
	st := &step{store: o}
	if k.TTL && !dry {
		if st.lease, err = l.leases.get(ctx, l); err != nil {
			return nil, err
		}
	}
	key := k.key(c.Namespace, name)
	return l.write(ctx, k, key, dry, func(cur *current) (*step, error) {
		if cur != nil {
			return nil, alreadyExists(k, name)
		}
		st.guards, st.also = nil, nil
		if err := l.guardNamespace(st, k, c.Namespace, name); err != nil {
			return nil, err
		}
		if err := l.charge(st, k, c.Namespace, name, o); err != nil {
			return nil, err
		}
		return st, nil
	})
}

// guardNamespace makes a step depend on the namespace: it is there and stays
// until the object is in it, so that nothing comes into one that is being emptied.
func (l *Layer) guardNamespace(st *step, k *Kind, namespace, name string) error {
	if !k.Namespaced {
		return nil
	}
	namespaces := l.namespaceKind()
	key := namespaces.key("", namespace)
	ns, err := l.local(key)
	if err != nil {
		return err
	}
	if ns == nil {
		return notFound(namespaces, namespace)
	}
	if object.FindString(ns.json, "metadata", "deletionTimestamp") != "" {
		f := forbidden(k, name, "unable to create new content in namespace "+namespace+" because it is being terminated")
		f.Causes = []Cause{{"NamespaceTerminating", "namespace " + namespace + " is being terminated", "metadata.namespace"}}
		return f
	}
	st.guards = append(st.guards, guard{key, ns.rev})
	return nil
}

func (l *Layer) namespaceKind() *Kind { return l.catalog.Load().named("v1", "Namespace") }
