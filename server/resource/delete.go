package resource

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/keelson-io/keelson/server/resource/object"
)

// deleteOptions reads the options of a delete, from the body and the query. The body
// counts where both speak.
func (c *call) deleteOptions() (deleteOptions, error) {
	var o object.Object
	b, err := c.body()
	if err != nil {
		return deleteOptions{}, err
	}
	if len(bytes.TrimSpace(b)) > 0 {
		s, err := decodeAs(mediaType(c.r), b)
		if err != nil {
			return deleteOptions{}, err
		}
		o = s.object
	}
	opts := deleteOptions{
		uid: object.String(o, "preconditions", "uid"), version: object.String(o, "preconditions", "resourceVersion"),
		propagation: object.String(o, "propagationPolicy"),
	}
	if n, ok := object.Int(o, "gracePeriodSeconds"); ok {
		opts.grace = &n
	} else if v := c.query.Get("gracePeriodSeconds"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return opts, badRequest("gracePeriodSeconds: %q is not a number", v)
		}
		opts.grace = &n
	}
	if opts.propagation == "" {
		opts.propagation = c.query.Get("propagationPolicy")
	}
	orphans, given := object.Get(o, "orphanDependents").(bool)
	if !given && c.query.Has("orphanDependents") {
		orphans, given = truth(c.query.Get("orphanDependents")), true
	}
	if given && opts.propagation == "" {
		opts.propagation = "Background"
		if orphans {
			opts.propagation = "Orphan"
		}
	}
	if !slices.Contains([]string{"", "Background", "Foreground", "Orphan"}, opts.propagation) {
		return opts, &Failure{Code: http.StatusUnprocessableEntity, Reason: "Invalid", Kind: "DeleteOptions", Group: metaGroup,
			Message: `DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "` + opts.propagation +
				`": supported values: "Background", "Foreground", "Orphan"`}
	}
	opts.dry, err = c.dryRun()
	for _, v := range object.Strings(o, "dryRun") {
		opts.dry = opts.dry || v == "All"
	}
	return opts, err
}

// delete answers DELETE of one object.
func (c *call) delete() error {
	opts, err := c.deleteOptions()
	if err != nil {
		return err
	}
	res, err := c.layer.remove(c.ctx, c.kind, c.Namespace, c.Name, opts)
	if err != nil {
		return err
	}
	if !res.removed {
		return c.sendObject(http.StatusOK, res.json)
	}
	return c.send(http.StatusOK, object.Encode(c.gone(res)))
}

// gone is the Status of an object that is no more.
func (c *call) gone(res *result) object.Object {
	details := object.Object{"name": c.Name, "kind": c.kind.Plural, "uid": object.FindString(res.json, "metadata", "uid")}
	if c.kind.Group != "" {
		details["group"] = c.kind.Group
	}
	return object.Object{"kind": "Status", "apiVersion": "v1", "metadata": object.Object{}, "status": "Success", "details": details}
}

// remove takes one object on its way out of the store.
func (l *Layer) remove(ctx context.Context, k *Kind, namespace, name string, opts deleteOptions) (*result, error) {
	return l.write(ctx, k, k.key(namespace, name), opts.dry, func(cur *current) (*step, error) {
		if cur == nil {
			return nil, notFound(k, name)
		}
		old, err := cur.decoded(k)
		if err != nil {
			return nil, err
		}
		if err := refuseDelete(k, name); err != nil {
			return nil, err
		}
		next, err := doom(k, old, opts, l.clock.Now())
		if err != nil {
			return nil, err
		}
		if next == nil {
			return l.uncharge(&step{}, k, namespace, old)
		}
		return &step{store: next, lease: cur.lease}, nil
	})
}

// refuseDelete keeps what the cluster cannot do without.
func refuseDelete(k *Kind, name string) error {
	if k.Group == "" && k.Plural == "namespaces" && slices.Contains(immortal, name) {
		return forbidden(k, name, "this namespace may not be deleted")
	}
	return nil
}

// deleteCollection answers DELETE of a collection: what the selectors name goes,
// one by one.
func (c *call) deleteCollection() error {
	opts, err := c.deleteOptions()
	if err != nil {
		return err
	}
	o, err := listOptionsOf(c.query)
	if err != nil {
		return err
	}
	sel, err := selectionOf(c.kind, c.Namespace, o.labels, o.fields)
	if err != nil {
		return err
	}
	p, err := c.layer.page(c.ctx, sel, o)
	if err != nil {
		return err
	}
	for _, e := range p.entries {
		_, err := c.layer.remove(c.ctx, c.kind, e.meta.Namespace, e.meta.Name, opts)
		if f := asFailure(err); err != nil && (f == nil || f.Code != http.StatusNotFound) {
			return err
		}
	}
	return c.sendList(p)
}
