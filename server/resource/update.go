package resource

import (
	"net/http"

	"github.com/keelson-io/keelson/server/resource/object"
)

// update answers PUT of an object, or of its status.
func (c *call) update() error {
	o, dry, err := c.receivedObject()
	if err == nil {
		err = c.checkName(o)
	}
	if err != nil {
		return err
	}
	res, err := c.change(dry, func(old object.Object) (object.Object, error) {
		if old == nil && c.kind.UpsertByPut && c.Sub == "" && object.String(o, "metadata", "resourceVersion") == "" {
			return object.Copy(o), nil
		}
		if old == nil {
			return nil, notFound(c.kind, c.Name)
		}
		return object.Copy(o), nil
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
// what the server itself says about it. fn may be called again; it leaves old as it is, and
// what it returns has nothing in common with old or with anything that is kept.
func (c *call) change(dry bool, fn func(old object.Object) (object.Object, error)) (*result, error) {
	l, k := c.layer, c.kind
	return l.write(c.ctx, k, k.key(c.Namespace, c.Name), dry, func(cur *current) (*step, error) {
		if cur == nil {
			wanted, err := fn(nil)
			if err != nil {
				return nil, err
			}
			return c.inserting(wanted, dry)
		}
		old, err := cur.decoded(k)
		if err != nil {
			return nil, err
		}
		wanted, err := fn(old)
		if err != nil {
			return nil, err
		}
		if err := c.refuseEscalation(wanted, old); err != nil {
			return nil, err
		}
		next, err := prepareUpdate(k, old, wanted, updateOptions{sub: c.Sub, patched: c.verb == "patch"})
		if err != nil {
			return nil, err
		}
		if err := c.manage(next, old, c.Sub); err != nil {
			return nil, err
		}
		if released(next) {
			st, err := l.deleting(k, old)
			if err == nil {
				st.shown = encodeStored(k, next)
			}
			return st, err
		}
		st := &step{store: next, lease: cur.lease}
		if c.Sub == "" {
			if err := l.provide(st, k, c.Namespace, old, next); err != nil {
				return nil, err
			}
		}
		return st, c.expires(st, dry)
	})
}
