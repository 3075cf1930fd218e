package resource

import (
	"errors"
	"net/http"

	"github.com/keelson-io/keelson/server/resource/object"
)

// create answers POST of a collection.
func (c *call) create() error {
	o, dry, err := c.receivedObject()
	if err != nil {
		return err
	}
	res, err := c.layer.insert(c, o, dry)
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
		res, err := l.insertNamed(c, o, dry)
		var f *Failure
		if base != "" && errors.As(err, &f) && f.Reason == "AlreadyExists" && attempt < maxNameAttempts {
			continue
		}
		return res, err
	}
}

func (l *Layer) insertNamed(c *call, o object.Object, dry bool) (*result, error) {
	name := object.String(o, "metadata", "name")
	return l.write(c.ctx, c.kind, c.kind.key(c.Namespace, name), dry, func(cur *current) (*step, error) {
		if cur == nil {
			return c.inserting(o, dry)
		}
		f := alreadyExists(c.kind, name)
		if object.FindString(cur.json, "metadata", "deletionTimestamp") != "" {
			f.Message = "object is being deleted: " + f.Message
		}
		return nil, f
	})
}

// inserting is the step that makes a new object of what a client sent.
func (c *call) inserting(sent object.Object, dry bool) (*step, error) {
	l, k := c.layer, c.kind
	if err := c.refuseEscalation(sent, nil); err != nil {
		return nil, err
	}
	o, err := prepareCreate(k, sent, l.newUID(), l.clock.Now(), c.manageNew)
	if err != nil {
		return nil, err
	}
	name := object.String(o, "metadata", "name")
	st := &step{store: o}
	if err := l.guardNamespace(st, k, c.Namespace, name); err != nil {
		return nil, err
	}
	if err := l.provide(st, k, c.Namespace, nil, o); err != nil {
		return nil, err
	}
	if err := l.charge(st, k, c.Namespace, name, o); err != nil {
		return nil, err
	}
	return st, c.expires(st, dry)
}

// provide gives an object that a client writes what it gets of the cluster; old
// is nil for a new one. It changes o.
func (l *Layer) provide(st *step, k *Kind, namespace string, old, o object.Object) error {
	if err := l.limit(k, namespace, old, o); err != nil {
		return err
	}
	if err := l.rank(k, old, o); err != nil {
		return err
	}
	if err := l.portNodes(st, k, old, o); err != nil {
		return err
	}
	return l.address(st, k, old, o)
}

// expires makes an object of a step go by itself, if it is of a kind that does:
// each write counts anew.
func (c *call) expires(st *step, dry bool) (err error) {
	if c.kind.TTL && !dry {
		st.lease, err = c.layer.leases.get(c.ctx, c.layer)
	}
	return err
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
