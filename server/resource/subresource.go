package resource

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// subresource serves what lies below an object's name.
func (c *call) subresource() error {
	all := c.kind.subresources()
	at := slices.IndexFunc(all, func(s subresource) bool { return s.name == c.Sub })
	if at < 0 || c.Tail != "" {
		return noSuchPath()
	}
	if !slices.Contains(all[at].verbs, c.verb) {
		return notAllowed()
	}
	switch c.Sub {
	case "scale":
		return c.scale()
	case "finalize":
		return c.finalize()
	case "binding":
		return c.bind()
	case "eviction":
		return c.evict()
	}
	switch c.verb { // of the status, or a pod's ephemeral containers
	case "get":
		return c.get()
	case "update":
		return c.update()
	}
	return c.patch()
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
		next := object.Copy(old)
		s, err := want(scaleObject(c.kind, old))
		if err == nil {
			err = c.checkName(s)
		}
		if err != nil {
			return nil, err
		}
		if v := object.Get(s, "spec", "replicas"); v != nil {
			if _, ok := object.Whole(v); !ok {
				return nil, patchInvalid(s, errors.New("json: cannot unmarshal string into Go struct field ScaleSpec.spec.replicas of type int32"))
			}
		}
		demand(next, s)
		n, _ := object.Int(s, "spec", "replicas")
		if n < 0 {
			return nil, invalid(&Kind{Name: "Scale", Group: "autoscaling"}, c.Name, causeOf(field.Invalid(atSpec.Child("replicas"), n, "must be greater than or equal to 0")))
		}
		object.Set(next, n, c.kind.Scale.Spec...)
		return next, nil
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
	if c.verb == "update" {
		s, err := c.decodeBody()
		if err != nil {
			return nil, err
		}
		return func(object.Object) (object.Object, error) { return s.object, nil }, nil
	}
	b, err := c.body()
	if err != nil {
		return nil, err
	}
	return patcher(&Kind{Name: "Scale", Group: "autoscaling"}, mediaType(c.r), b)
}

// demand makes an update of old fail unless old is the object that sent means:
// its uid and its resource version, where sent names them.
func demand(old, sent object.Object) {
	for _, name := range []string{"uid", "resourceVersion"} {
		if v := object.String(sent, "metadata", name); v != "" {
			object.Set(old, v, "metadata", name)
		}
	}
}

// finalize answers PUT of a namespace's finalizers: the last one lets it go.
func (c *call) finalize() error {
	o, dry, err := c.receivedObject()
	if err == nil {
		err = c.checkName(o)
	}
	if err != nil {
		return err
	}
	res, err := c.change(dry, func(old object.Object) (object.Object, error) {
		if old == nil {
			return nil, notFound(c.kind, c.Name)
		}
		next := object.Copy(old)
		demand(next, o)
		if finalizers := object.List(o, "spec", "finalizers"); len(finalizers) > 0 {
			object.Set(next, slices.Clone(finalizers), "spec", "finalizers")
		} else {
			object.Remove(next, "spec", "finalizers")
		}
		return next, nil
	})
	if err != nil {
		return err
	}
	return c.sendObject(http.StatusOK, res.json)
}

// bind answers POST of a pod's binding: the scheduler's decision, made once.
func (c *call) bind() error {
	s, dry, err := c.received()
	if err != nil {
		return err
	}
	if object.String(s.object, "metadata", "name") != c.Name {
		return badRequest("name in URL does not match name in Binding object")
	}
	return c.bindAs(s, dry)
}

// bindNamed answers POST of a binding that names its pod: what bind does, as schedulers asked
// for it before pods had that. Unlike there, a uid means nothing.
func (c *call) bindNamed() error {
	s, dry, err := c.received()
	if err == nil {
		err = identify(c.kind, s.object, c.Namespace)
	}
	if err != nil {
		return err
	}
	object.Remove(s.object, "metadata", "uid")
	c.kind, c.Name, c.Sub = c.layer.catalog.Load().named("v1", "Pod"), object.String(s.object, "metadata", "name"), "binding"
	return c.bindAs(s, dry)
}

func (c *call) bindAs(s *sent, dry bool) error {
	target, at := object.Map(s.object, "target"), field.NewPath("target")
	var errs field.ErrorList
	if kind := object.String(target, "kind"); kind != "" && kind != "Node" {
		errs = append(errs, field.NotSupported(at.Child("kind"), kind, []string{"Node", "<empty>"}))
	}
	if object.String(target, "name") == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	}
	if errs != nil {
		return &Failure{Code: http.StatusInternalServerError, Message: errs.ToAggregate().Error()}
	}
	_, err := c.change(dry, func(old object.Object) (object.Object, error) {
		if old == nil {
			return nil, notFound(c.kind, c.Name)
		}
		if why := refuseBinding(old); why != "" {
			return nil, conflict(&Kind{Plural: "pods/binding"}, c.Name, why)
		}
		next := object.Copy(old)
		demand(next, s.object)
		object.Set(next, object.String(target, "name"), "spec", "nodeName")
		object.Remove(next, "status", "nominatedNodeName")
		for _, field := range []string{"annotations", "labels"} {
			for name, v := range object.Map(s.object, "metadata", field) {
				object.Set(next, v, "metadata", field, name)
			}
		}
		setCondition(next, object.Object{"type": "PodScheduled", "status": "True", "lastProbeTime": nil}, timestamp(c.layer.clock.Now()))
		return next, nil
	})
	if err != nil {
		return err
	}
	return c.send(http.StatusCreated, object.Encode(success(http.StatusCreated)))
}

// refuseBinding says why a pod cannot be bound; empty: it can.
func refuseBinding(pod object.Object) string {
	name := object.String(pod, "metadata", "name")
	switch node := object.String(pod, "spec", "nodeName"); {
	case object.String(pod, "metadata", "deletionTimestamp") != "":
		return "pod " + name + " is being deleted, cannot be assigned to a host"
	case node != "":
		return fmt.Sprintf("pod %s is already assigned to node %q", name, node)
	case len(object.List(pod, "spec", "schedulingGates")) > 0:
		return "pod " + name + " has non-empty .spec.schedulingGates"
	}
	return ""
}

func success(code int) object.Object {
	return object.Object{"kind": "Status", "apiVersion": "v1", "metadata": object.Object{}, "status": "Success", "code": code}
}

// condition is a condition of an object's status by its type; nil: it has none.
func condition(o object.Object, kind string) object.Object {
	for _, v := range object.List(o, "status", "conditions") {
		if have, ok := v.(object.Object); ok && have["type"] == kind {
			return have
		}
	}
	return nil
}

// setCondition changes o: its status has a condition.
func setCondition(o, wanted object.Object, now string) {
	have := condition(o, object.String(wanted, "type"))
	if have == nil {
		have = object.Object{}
		object.Set(o, append(object.List(o, "status", "conditions"), have), "status", "conditions")
	}
	if have["status"] != wanted["status"] {
		have["lastTransitionTime"] = now
	}
	maps.Copy(have, wanted)
}
