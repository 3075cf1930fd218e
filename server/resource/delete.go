package resource

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// deleteOptions reads the options of a delete: those of the body, or without one
// those of the query. A dry run is one wherever it is asked for.
func (c *call) deleteOptions() (deleteOptions, error) {
	b, err := c.body()
	if err != nil {
		return deleteOptions{}, err
	}
	var o object.Object
	if len(bytes.TrimSpace(b)) > 0 {
		s, err := decodeAs(mediaType(c.r), b)
		if err != nil && asFailure(err) == nil {
			err = badRequest("%v", err)
		}
		if err != nil {
			return deleteOptions{}, err
		}
		if err := checkDeleteOptions(s.object); err != nil {
			return deleteOptions{}, err
		}
		o = s.object
	} else if o, err = optionsInQuery(c.query); err != nil {
		return deleteOptions{}, err
	}
	return c.deleteOptionsOf(o)
}

// checkDeleteOptions refuses a body that is something else.
func checkDeleteOptions(o object.Object) error {
	if kind := object.String(o, "kind"); kind != "" && kind != "DeleteOptions" {
		return badRequest("no kind %q is registered for version %q of delete options", kind, object.String(o, "apiVersion"))
	}
	if v := o["gracePeriodSeconds"]; v != nil {
		if _, ok := object.Whole(v); !ok {
			return badRequest("json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64")
		}
	}
	return nil
}

// optionsInQuery are the options of a delete that has no body, as a body has them.
func optionsInQuery(q url.Values) (object.Object, error) {
	o := object.Object{}
	if v := q.Get("gracePeriodSeconds"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, badRequest("strconv.ParseInt: parsing %q: invalid syntax", v)
		}
		o["gracePeriodSeconds"] = n
	}
	if v := q.Get("propagationPolicy"); v != "" {
		o["propagationPolicy"] = v
	}
	if q.Has("orphanDependents") {
		o["orphanDependents"] = truth(q.Get("orphanDependents"))
	}
	return o, nil
}

// deleteOptionsOf reads a DeleteOptions object, of a delete or an eviction.
func (c *call) deleteOptionsOf(o object.Object) (deleteOptions, error) {
	opts := deleteOptions{
		uid: object.String(o, "preconditions", "uid"), version: object.String(o, "preconditions", "resourceVersion"),
		propagation: object.String(o, "propagationPolicy"),
	}
	if n, ok := object.Int(o, "gracePeriodSeconds"); ok {
		opts.grace = &n
	}
	orphans, given := object.Get(o, "orphanDependents").(bool)
	at := field.NewPath("propagationPolicy")
	switch policies := []string{"Foreground", "Background", "Orphan"}; {
	case given && opts.propagation != "":
		return opts, optionsInvalid("DeleteOptions", field.Invalid(at, opts.propagation, "orphanDependents and deletionPropagation cannot be both set"))
	case given && orphans:
		opts.propagation = "Orphan"
	case given:
		opts.propagation = "Background"
	case opts.propagation != "" && !slices.Contains(policies, opts.propagation):
		return opts, optionsInvalid("DeleteOptions", field.NotSupported(at, opts.propagation, append(policies, "nil")))
	}
	inside, err := dryRunOf("DeleteOptions", object.Strings(o, "dryRun"))
	if err != nil {
		return opts, err
	}
	outside, err := c.dryRun()
	opts.dry = inside || outside
	return opts, err
}

// delete answers DELETE of one object.
func (c *call) delete() error {
	opts, err := c.deleteOptions()
	if err != nil {
		return err
	}
	if opts.propagation == "" && c.kind.qualified() == "jobs.batch" {
		c.warn("child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning")
	}
	res, err := c.layer.remove(c.ctx, c.kind, c.Namespace, c.Name, opts)
	if err != nil {
		return err
	}
	if !res.removed || showsDeleted[c.kind.qualified()] {
		return c.sendObject(http.StatusOK, res.json)
	}
	return c.send(http.StatusOK, object.Encode(c.gone(res)))
}

// showsDeleted are the kinds of which a delete shows the object that it deleted.
var showsDeleted = set("pods", "podtemplates", "resourcequotas", "services", "serviceaccounts", "namespaces", "persistentvolumes", "persistentvolumeclaims",
	"csidrivers.storage.k8s.io", "csinodes.storage.k8s.io", "storageclasses.storage.k8s.io", "volumeattachments.storage.k8s.io", "volumeattributesclasses.storage.k8s.io",
	"deviceclasses.resource.k8s.io", "devicetaintrules.resource.k8s.io", "resourceclaims.resource.k8s.io", "resourceclaimtemplates.resource.k8s.io",
	"resourcepoolstatusrequests.resource.k8s.io", "resourceslices.resource.k8s.io")

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
		return l.removing(k, cur, old, opts)
	})
}

// removing is the step that deletes an object, or marks it as dying.
func (l *Layer) removing(k *Kind, cur *current, old object.Object, opts deleteOptions) (*step, error) {
	name := object.String(old, "metadata", "name")
	if err := refuseDelete(k, name); err != nil {
		return nil, err
	}
	next, err := doom(k, old, opts, l.clock.Now())
	if err != nil {
		return nil, err
	}
	if next == nil {
		return l.deleting(k, old)
	}
	return &step{store: next, lease: cur.lease}, nil
}

// deleting is the step that takes an object out of the store, with what it held.
func (l *Layer) deleting(k *Kind, o object.Object) (*step, error) {
	st := &step{}
	if k.qualified() == "services" {
		if err := l.freeAddress(st, clusterIP(o)); err != nil {
			return nil, err
		}
		if err := l.portNodes(st, k, o, nil); err != nil {
			return nil, err
		}
	}
	return st, l.uncharge(st, k, object.String(o, "metadata", "namespace"), o)
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
	p, err := c.selected()
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
