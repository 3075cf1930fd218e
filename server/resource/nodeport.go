package resource

import (
	"encoding/base64"
	"fmt"
	"math/big"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Node ports of Services. Which are taken is one object, a set of bits, at the key and in
// the form of a kube-apiserver, so that both may give them out on one store. It is
// written in the transaction that writes the Service: two Services never have one port.

const (
	portsKey     = registryRoot + "ranges/servicenodeports"
	defaultPorts = "30000-32767" // a kube-apiserver's
)

// ports is what is known of node ports while a Service is written.
type ports struct {
	rev          int64
	span         string // as it is stored
	first, count int
	taken        big.Int
	changed      bool
}

// portNodes makes a step that stores a Service give it the node ports that it
// needs, and give back those that it needs no more. old is nil for a new one, o for one
// that goes. It changes o.
func (l *Layer) portNodes(st *step, k *Kind, old, o object.Object) error {
	if k.qualified() != "services" || !onNodes(old) && !onNodes(o) {
		return nil
	}
	p, err := l.loadPorts(k)
	if err != nil {
		return err
	}
	had := nodePorts(old)
	if onNodes(o) {
		keepNodePorts(o, old, had)
		if err := p.give(l, k, o, had); err != nil {
			return err
		}
	} else {
		dropNodePorts(o, old, had)
	}
	needed := nodePorts(o)
	for n := range had {
		if !needed[n] {
			p.set(n, 0)
		}
	}
	if p.changed {
		st.guards = append(st.guards, guard{portsKey, p.rev})
		st.also = append(st.also, also{portsKey, p.encode()})
	}
	return nil
}

// onNodes reports whether a Service is reached at ports of nodes.
func onNodes(o object.Object) bool {
	kind := object.String(o, "spec", "type")
	return kind == "NodePort" || kind == "LoadBalancer"
}

// checkedByNodes reports whether a Service's balancer asks nodes whether they have
// some of its pods, at a port for that.
func checkedByNodes(o object.Object) bool {
	return object.String(o, "spec", "type") == "LoadBalancer" && object.String(o, "spec", "externalTrafficPolicy") == "Local"
}

// nodePorts are those that a Service has.
func nodePorts(o object.Object) map[int64]bool {
	out := map[int64]bool{}
	eachOf(object.Map(o, "spec"), "ports", func(port object.Object) {
		if n, _ := object.Int(port, "nodePort"); n != 0 {
			out[n] = true
		}
	})
	if n, _ := object.Int(o, "spec", "healthCheckNodePort"); n != 0 {
		out[n] = true
	}
	return out
}

// keepNodePorts changes o: what an update does not say stays.
func keepNodePorts(o, old object.Object, had map[int64]bool) {
	if !onNodes(old) {
		return
	}
	used, byName := nodePorts(o), map[string]int64{}
	eachOf(object.Map(old, "spec"), "ports", func(port object.Object) {
		n, _ := object.Int(port, "nodePort")
		byName[object.String(port, "name")] = n
	})
	eachOf(object.Map(o, "spec"), "ports", func(port object.Object) {
		n := byName[object.String(port, "name")]
		if have, _ := object.Int(port, "nodePort"); have == 0 && n != 0 && !(had[n] && used[n]) {
			port["nodePort"] = n
		}
	})
	if n, _ := object.Int(old, "spec", "healthCheckNodePort"); n != 0 && checkedByNodes(o) {
		object.Default(o, n, "spec", "healthCheckNodePort")
	}
}

// dropNodePorts changes o, which is no more reached at nodes: what it had for that goes.
func dropNodePorts(o, old object.Object, had map[int64]bool) {
	for _, name := range []string{"externalTrafficPolicy", "allocateLoadBalancerNodePorts", "healthCheckNodePort"} {
		if object.Equal(object.Get(o, "spec", name), object.Get(old, "spec", name)) {
			object.Remove(o, "spec", name)
		}
	}
	eachOf(object.Map(o, "spec"), "ports", func(port object.Object) {
		if n, _ := object.Int(port, "nodePort"); had[n] {
			delete(port, "nodePort")
		}
	})
}

// give changes o: it has the ports that it needs.
func (p *ports) give(l *Layer, k *Kind, o object.Object, had map[int64]bool) error {
	spec := object.Map(o, "spec")
	allocate := spec["type"] == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false
	mine, byPort := map[int64]bool{}, map[int64]int64{}
	take := func(n int64, at *field.Path) error {
		if had[n] || mine[n] {
			return nil
		}
		if why := p.take(n); why != "" {
			return invalid(k, object.String(o, "metadata", "name"), causeOf(field.Invalid(at, n, why)))
		}
		mine[n] = true
		return nil
	}
	for i, v := range object.List(spec, "ports") { // those that are asked for come first
		port, _ := v.(object.Object)
		if n, _ := object.Int(port, "nodePort"); n != 0 {
			if err := take(n, atSpec.Child("ports").Index(i).Child("nodePort")); err != nil {
				return err
			}
			number, _ := object.Int(port, "port")
			byPort[number] = n
		}
	}
	for _, v := range object.List(spec, "ports") {
		port, _ := v.(object.Object)
		number, _ := object.Int(port, "port")
		if n, _ := object.Int(port, "nodePort"); n != 0 || !allocate {
			continue
		}
		n := byPort[number] // one for all protocols of a port
		if n == 0 {
			if n = p.next(l); n == 0 {
				return fmt.Errorf("failed to allocate a nodePort: %w", errRangeFull)
			}
			byPort[number] = n
		}
		port["nodePort"] = n
	}
	n, _ := object.Int(spec, "healthCheckNodePort")
	switch {
	case !checkedByNodes(o):
		if had[n] {
			delete(spec, "healthCheckNodePort")
		}
	case n != 0:
		return take(n, atSpec.Child("healthCheckNodePort"))
	default:
		if n = p.next(l); n == 0 {
			return fmt.Errorf("failed to allocate a HealthCheck NodePort: %w", errRangeFull)
		}
		spec["healthCheckNodePort"] = n
	}
	return nil
}

// take takes a port that is asked for, or says why not.
func (p *ports) take(n int64) string {
	switch i := int(n) - p.first; {
	case i < 0 || i >= p.count:
		return "provided port is not in the valid range. The range of valid ports is " + p.span
	case p.taken.Bit(i) == 1:
		return "provided port is already allocated"
	}
	p.set(n, 1)
	return ""
}

// next takes a port that nobody has; 0: there is none. The lower ones, which people
// choose themselves, come last.
func (p *ports) next(l *Layer) int64 {
	low := min(max(16, p.count/32), 128, p.count)
	upper := p.count - low
	begin := 0
	if upper > 0 {
		begin = int(l.random64() % uint64(upper))
	}
	for i := range p.count {
		at := i - upper
		if i < upper {
			at = low + (begin+i)%upper
		}
		if p.taken.Bit(at) == 0 {
			p.set(int64(p.first+at), 1)
			return int64(p.first + at)
		}
	}
	return 0
}

func (p *ports) set(n int64, bit uint) {
	if i := int(n) - p.first; i >= 0 && i < p.count && p.taken.Bit(i) != bit {
		p.taken.SetBit(&p.taken, i, bit)
		p.changed = true
	}
}

// loadPorts reads which ports are taken. Before anybody wrote that, the Services tell.
func (l *Layer) loadPorts(services *Kind) (*ports, error) {
	tx, err := l.store.Read(0)
	if err != nil {
		return nil, err
	}
	defer tx.Release()
	p := &ports{span: defaultPorts}
	cur, err := readKey(tx, portsKey)
	if err != nil {
		return nil, err
	}
	if cur != nil {
		o, _, err := object.Decode(cur.json)
		if err != nil {
			return nil, err
		}
		data, err := base64.StdEncoding.DecodeString(object.String(o, "data"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", portsKey, err)
		}
		p.rev = cur.rev
		p.taken.SetBytes(data)
		if span := object.String(o, "range"); span != "" {
			p.span = span
		}
	}
	var last int
	if _, err := fmt.Sscanf(p.span, "%d-%d", &p.first, &last); err != nil || p.first < 1 || last < p.first || last > 65535 {
		return nil, fmt.Errorf("%s: %q is no range of ports", portsKey, p.span)
	}
	p.count = last - p.first + 1
	if cur != nil {
		return p, nil
	}
	all, err := storedIn(tx, services, "")
	for _, s := range all {
		for n := range nodePorts(s.object) {
			p.set(n, 1)
		}
	}
	return p, err
}

func (p *ports) encode() []byte {
	return object.Encode(object.Object{"kind": "RangeAllocation", "apiVersion": "v1", "metadata": object.Object{},
		"range": p.span, "data": base64.StdEncoding.EncodeToString(p.taken.Bytes())})
}
