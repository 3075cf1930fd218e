package resource

import (
	"github.com/keelson-io/keelson/server/resource/object"
)

// systemPriorities are the classes that a kube-apiserver makes at its start.
var systemPriorities = map[string]int64{"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}

// rank gives a new pod the priority of its class. It changes o.
func (l *Layer) rank(k *Kind, old, o object.Object) error {
	name := object.String(o, "spec", "priorityClassName")
	if k.qualified() != "pods" || old != nil || name == "" {
		return nil
	}
	classes := l.catalog.Load().named("scheduling.k8s.io/v1", "PriorityClass")
	cur, err := l.local(classes.key("", name))
	if err != nil {
		return err
	}
	if cur == nil {
		n, ok := systemPriorities[name]
		if !ok {
			return forbidden(k, object.String(o, "metadata", "name"), "no PriorityClass with name "+name+" was found")
		}
		object.Set(o, n, "spec", "priority")
		return nil
	}
	class, err := cur.decoded(classes)
	if err != nil {
		return err
	}
	n, _ := object.Int(class, "value")
	object.Set(o, n, "spec", "priority")
	if policy := object.String(class, "preemptionPolicy"); policy != "" {
		object.Set(o, policy, "spec", "preemptionPolicy")
	}
	return nil
}
