package resource

import (
	"net/http"

	"github.com/keelson-io/keelson/server/resource/object"
)

// subresource serves what lies below an object's name.
func (c *call) subresource() error {
	switch {
	case c.Tail != "":
		return noSuchPath()
	case c.Sub == "status" && c.kind.Status:
		return c.served(c.get, c.update, c.patch)
	case c.Sub == "scale" && c.kind.Scale != nil:
		return c.scale()
	case c.Group == "" && c.Plural == "namespaces" && c.Sub == "finalize" && c.verb == "update":
		return c.finalize()
	case c.Group == "" && c.Plural == "pods" && c.Sub == "binding" && c.verb == "create":
		return c.bind()
	case c.Group == "" && c.Plural == "pods" && c.Sub == "eviction" && c.verb == "create":
		return c.evict()
	}
	return noSuchPath()
}

// served dispatches the verbs that a part of an object has.
func (c *call) served(get, update, patch func() error) error {
	switch c.verb {
	case "get":
		return get()
	case "update":
		return update()
	case "patch":
		return patch()
	}
	return notAllowed("the server does not allow this method on the requested resource")
}

// scaleObject is the Scale of an object.
func scaleObject(k *Kind, o object.Object) object.Object {
	meta := object.Object{}
	for _, name := range []string{"name", "namespace", "uid", "resourceVersion", "creationTimestamp"} {
		if v, ok := object.Map(o, "metadata")[name]; ok {
			meta[name] = v
		}
	}
	spec, status := object.Object{}, object.Object{"replicas": int64(0)}
	if n, ok := object.Int(o, k.Scale.Spec...); ok {
		spec["replicas"] = n
	}
	if n, ok := object.Int(o, k.Scale.Status...); ok {
		status["replicas"] = n
	}
	if k.Scale.Object {
		if s := selectorText(object.Map(o, k.Scale.Selector...)); s != "" {
			status["selector"] = s
		}
	} else if len(k.Scale.Selector) > 0 {
		status["selector"] = object.String(o, k.Scale.Selector...)
	}
	return object.Object{"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}
}

// scale serves an object's number of replicas.
func (c *call) scale() error {
	if c.verb == "get" {
		cur, err := c.layer.read(c.ctx, c.kind, c.Namespace, c.Name, "")
		if err != nil {
			return err
		}
		if cur == nil {
			return notFound(c.kind, c.Name)
		}
		o, err := cur.decoded(c.kind)
		if err != nil {
			return err
		}
		return c.sendScale(o)
	}
	want, err := c.scaler()
	if err != nil {
		return err
	}
	dry, err := c.dryRun()
	if err != nil {
		return err
	}
	res, err := c.change(dry, func(old object.Object) (object.Object, error) {
		if old == nil {
			return nil, notFound(c.kind, c.Name)
		}
		s, err := want(scaleObject(c.kind, old))
		if err != nil {
			return nil, err
		}
		if v := object.String(s, "metadata", "resourceVersion"); v != "" && v != object.String(old, "metadata", "resourceVersion") {
			return nil, conflict(c.kind, c.Name, modified)
		}
		n, _ := object.Int(s, "spec", "replicas")
		if n < 0 {
			return nil, invalid(&Kind{Name: "Scale", Group: "autoscaling"}, c.Name, Cause{causeInvalid, "Invalid value: must be greater than or equal to 0", "spec.replicas"})
		}
		object.Set(old, n, c.kind.Scale.Spec...)
		return old, nil
	})
	if err != nil {
		return err
	}
	o, _, err := object.Decode(res.json)
	if err != nil {
		return err
	}
	return c.sendScale(o)
}

func (c *call) sendScale(o object.Object) error {
	return c.send(http.StatusOK, object.Encode(scaleObject(c.kind, o)))
}

// scaler returns what the request makes of a Scale.
func (c *call) scaler() (func(object.Object) (object.Object, error), error) {
	switch c.verb {
	case "update":
		s, err := c.decodeBody()
		if err != nil {
			return nil, err
		}
		return func(object.Object) (object.Object, error) { return s.object, nil }, nil
	case "patch":
		b, err := c.body()
		if err != nil {
			return nil, err
		}
		return patcher(&Kind{Name: "Scale", Group: "autoscaling"}, mediaType(c.r), b)
	}
	return nil, notAllowed("the server does not allow this method on the requested resource")
}

// finalize answers PUT of a namespace's finalizers: the last one lets it go.
func (c *call) finalize() error {
	s, err := c.decodeBody()
	if err != nil {
		return err
	}
	res, err := c.change(false, func(old object.Object) (object.Object, error) {
		if old == nil {
			return nil, notFound(c.kind, c.Name)
		}
		if v := object.String(s.object, "metadata", "resourceVersion"); v != "" && v != object.String(old, "metadata", "resourceVersion") {
			return nil, conflict(c.kind, c.Name, modified)
		}
		if finalizers := object.List(s.object, "spec", "finalizers"); len(finalizers) > 0 {
			object.Set(old, finalizers, "spec", "finalizers")
		} else {
			object.Remove(old, "spec", "finalizers")
		}
		return old, nil
	})
	if err != nil {
		return err
	}
	return c.sendObject(http.StatusOK, res.json)
}

// bind answers POST of a pod's binding: the scheduler's decision, made once.
func (c *call) bind() error {
	s, err := c.decodeBody()
	if err != nil {
		return err
	}
	dry, err := c.dryRun()
	if err != nil {
		return err
	}
	target := object.String(s.object, "target", "name")
	if target == "" {
		return invalid(&Kind{Name: "Binding"}, c.Name, Cause{causeRequired, "Required value", "target.name"})
	}
	_, err = c.change(dry, func(old object.Object) (object.Object, error) {
		switch {
		case old == nil:
			return nil, notFound(c.kind, c.Name)
		case object.String(old, "metadata", "deletionTimestamp") != "":
			return nil, conflict(c.kind, c.Name, "pod "+c.Name+" is being deleted, cannot be assigned to a host")
		case object.String(old, "spec", "nodeName") != "":
			return nil, conflict(c.kind, c.Name, "pod "+c.Name+" is already assigned to node "+string(object.AppendString(nil, object.String(old, "spec", "nodeName"))))
		}
		object.Set(old, target, "spec", "nodeName")
		for name, v := range object.Map(s.object, "metadata", "annotations") {
			object.Set(old, v, "metadata", "annotations", name)
		}
		setCondition(old, "PodScheduled", "True", timestamp(c.layer.clock.Now()))
		return old, nil
	})
	if err != nil {
		return err
	}
	return c.send(http.StatusCreated, object.Encode(success()))
}

func success() object.Object {
	return object.Object{"kind": "Status", "apiVersion": "v1", "metadata": object.Object{}, "status": "Success"}
}

// setCondition changes o: a condition of its status has this value.
func setCondition(o object.Object, kind, value, now string) {
	list := object.List(o, "status", "conditions")
	for _, v := range list {
		if have, ok := v.(object.Object); ok && have["type"] == kind {
			if have["status"] != value {
				have["status"], have["lastTransitionTime"] = value, now
			}
			return
		}
	}
	object.Set(o, append(list, object.Object{"type": kind, "status": value, "lastTransitionTime": now, "lastProbeTime": nil}), "status", "conditions")
}

// evict answers POST of a pod's eviction: it is deleted if its disruption budgets
// have room.
func (c *call) evict() error {
	s, err := c.decodeBody()
	if err != nil {
		return err
	}
	cur, err := c.layer.fresh(c.ctx, c.kind.key(c.Namespace, c.Name))
	if err != nil {
		return err
	}
	if cur == nil {
		return notFound(c.kind, c.Name)
	}
	if err := c.layer.takeFromBudget(c.ctx, c.Namespace, cur); err != nil {
		return err
	}
	opts := deleteOptions{uid: object.FindString(cur.json, "metadata", "uid"), propagation: object.String(s.object, "deleteOptions", "propagationPolicy")}
	if n, ok := object.Int(s.object, "deleteOptions", "gracePeriodSeconds"); ok {
		opts.grace = &n
	}
	if _, err := c.layer.remove(c.ctx, c.kind, c.Namespace, c.Name, opts); err != nil {
		return err
	}
	return c.send(http.StatusCreated, object.Encode(success()))
}
