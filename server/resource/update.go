package resource

import (
	"net/http"

	"github.com/keelson-io/keelson/server/resource/object"
)

// update answers PUT of an object, or of its status.
func (c *call) update() error {
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
	switch name := object.String(s.object, "metadata", "name"); name {
	case c.Name:
	case "":
		object.Set(s.object, c.Name, "metadata", "name")
	default:
		return badRequest("the name of the object (%s) does not match the name on the URL (%s)", name, c.Name)
	}
	res, err := c.change(dry, func(old object.Object) (object.Object, error) {
		if old == nil && c.kind.UpsertByPut && c.Sub == "" && object.String(s.object, "metadata", "resourceVersion") == "" {
			return s.object, nil
		}
		if old == nil {
			return nil, notFound(c.kind, c.Name)
		}
		return s.object, nil
	})
	if err != nil {
		return err
	}
	return c.sendObject(res.code(), res.json)
}

func (r *result) code() int {
	if r.created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// change makes of what is stored (nil: nothing) what fn wants it to be, with
// what the server itself says about it. It may be called again.
func (c *call) change(dry bool, fn func(old object.Object) (object.Object, error)) (*result, error) {
	l, k := c.layer, c.kind
	return l.write(c.ctx, k, k.key(c.Namespace, c.Name), dry, func(cur *current) (*step, error) {
		if cur == nil {
			wanted, err := fn(nil)
			if err != nil {
				return nil, err
			}
			return c.inserting(wanted)
		}
		old, err := cur.decoded(k)
		if err != nil {
			return nil, err
		}
		wanted, err := fn(object.Copy(old))
		if err != nil {
			return nil, err
		}
		if err := c.refuseEscalation(wanted, old); err != nil {
			return nil, err
		}
		next, err := prepareUpdate(k, old, wanted, updateOptions{sub: c.Sub, unconditional: c.verb == "patch"})
		if err != nil {
			return nil, err
		}
		if err := c.manage(next, old, c.Sub); err != nil {
			return nil, err
		}
		if released(next) {
			return l.uncharge(&step{}, k, c.Namespace, old)
		}
		st := &step{store: next, lease: cur.lease}
		return st, nil
	})
}

// inserting makes a new object in the course of a write that expected one.
func (c *call) inserting(wanted object.Object) (*step, error) {
	if err := c.refuseEscalation(wanted, nil); err != nil {
		return nil, err
	}
	o, err := prepareCreate(c.kind, wanted, c.layer.newUID(), c.layer.clock.Now(), c.manageNew)
	if err != nil {
		return nil, err
	}
	st := &step{store: o}
	if err := c.layer.guardNamespace(st, c.kind, c.Namespace, c.Name); err != nil {
		return nil, err
	}
	if err := c.layer.charge(st, c.kind, c.Namespace, c.Name, o); err != nil {
		return nil, err
	}
	return st, nil
}
