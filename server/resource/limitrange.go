package resource

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/server/resource/object"
)

// LimitRanges: what containers get that do not say what they need, and what
// containers, pods and claims may ask for. Everything but limit is pure.

// limit makes an object of a namespace keep to its LimitRanges: it changes o, or
// refuses it. What a pod asks for does not change once it is there.
func (l *Layer) limit(k *Kind, namespace string, old, o object.Object) error {
	isPod := k.qualified() == "pods"
	if isPod && old != nil || !isPod && k.qualified() != "persistentvolumeclaims" {
		return nil
	}
	tx, err := l.store.Read(0)
	if err != nil {
		return err
	}
	defer tx.Release()
	ranges, err := storedIn(tx, l.catalog.Load().named("v1", "LimitRange"), namespace)
	if err != nil || len(ranges) == 0 {
		return err
	}
	if isPod {
		for _, r := range ranges {
			fillLimits(o, r.object)
		}
		object.Set(o, qualityOf(object.Map(o, "spec")), "status", "qosClass")
	}
	for _, r := range ranges {
		if wrong := exceeds(o, r.object, isPod); len(wrong) > 0 {
			return forbidden(k, object.String(o, "metadata", "name"), joined(wrong))
		}
	}
	return nil
}

// joined is several complaints as one text, each once.
func joined(texts []string) string {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	if len(texts) == 1 {
		return texts[0]
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// limitItems are the items of a LimitRange for a type: Container, Pod or PersistentVolumeClaim.
func limitItems(limitRange object.Object, kind string) (out []object.Object) {
	for _, v := range object.List(limitRange, "spec", "limits") {
		if item, ok := v.(object.Object); ok && item["type"] == kind {
			out = append(out, item)
		}
	}
	return out
}

// defaultLimits changes a LimitRange: the default limit is the greatest, the
// default request the default limit, else the least.
func defaultLimits(limitRange object.Object) {
	for _, item := range limitItems(limitRange, "Container") {
		for _, pair := range [][2]string{{"max", "default"}, {"default", "defaultRequest"}, {"min", "defaultRequest"}} {
			for name, v := range object.Map(item, pair[0]) {
				if object.Get(item, pair[1], name) == nil {
					object.Set(item, v, pair[1], name)
				}
			}
		}
	}
}

// limitAnnotation tells what a pod got from LimitRanges.
const limitAnnotation = "kubernetes.io/limit-ranger"

// fillLimits changes a pod: its containers get the defaults of a LimitRange.
func fillLimits(pod, limitRange object.Object) {
	var told []string
	for _, kind := range [][2]string{{"containers", "container"}, {"initContainers", "init container"}} {
		for _, v := range object.List(pod, "spec", kind[0]) {
			c, _ := v.(object.Object)
			for _, part := range [][3]string{{"defaultRequest", "requests", " request for "}, {"default", "limits", " limit for "}} {
				var set []string
				for _, item := range limitItems(limitRange, "Container") {
					for name, q := range object.Sorted(object.Map(item, part[0])) {
						if object.Get(c, "resources", part[1], name) == nil {
							object.Set(c, q, "resources", part[1], name)
							set = append(set, name)
						}
					}
				}
				if set != nil {
					slices.Sort(set)
					told = append(told, strings.Join(set, ", ")+part[2]+kind[1]+" "+object.String(c, "name"))
				}
			}
		}
	}
	if told != nil {
		object.Set(pod, "LimitRanger plugin set: "+strings.Join(told, "; "), "metadata", "annotations", limitAnnotation)
	}
}

// exceeds says in which ways a pod or a claim does not keep to a LimitRange.
func exceeds(o, limitRange object.Object, isPod bool) (wrong []string) {
	spec := object.Map(o, "spec")
	if !isPod {
		for _, item := range limitItems(limitRange, "PersistentVolumeClaim") {
			wrong = append(wrong, outside(item, quantities(spec, "requests"), nil, false)...)
		}
		return wrong
	}
	for _, item := range limitItems(limitRange, "Container") {
		for _, list := range []string{"containers", "initContainers"} {
			for _, v := range object.List(spec, list) {
				c, _ := v.(object.Object)
				wrong = append(wrong, outside(item, quantities(c, "requests"), quantities(c, "limits"), true)...)
			}
		}
	}
	for _, item := range limitItems(limitRange, "Pod") {
		wrong = append(wrong, outside(item, podResources(spec, "requests"), podResources(spec, "limits"), true)...)
	}
	return wrong
}

// quantities are the requests or the limits of a container or a claim.
func quantities(of object.Object, kind string) amounts {
	a := amounts{}
	for name, q := range object.Map(of, "resources", kind) {
		if n, ok := parseQuantity(q); ok {
			a[name] = n
		}
	}
	return a
}

// outside checks requests and limits against one item of a LimitRange, in the
// words of a kube-apiserver. limited: there are limits, and the most counts for them.
func outside(item object.Object, requests, limits amounts, limited bool) (wrong []string) {
	kind := object.String(item, "type")
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	each := func(bound string, fn func(name, text string, want, request, limit *big.Rat)) {
		for name, v := range object.Map(item, bound) {
			if want, ok := parseQuantity(v); ok {
				fn(name, object.Text(v), want, requests[name], limits[name])
			}
		}
	}
	each("min", func(name, text string, want, request, limit *big.Rat) {
		switch {
		case request == nil:
			complain("minimum %s usage per %s is %s.  No request is specified", name, kind, text)
		case request.Cmp(want) < 0:
			complain("minimum %s usage per %s is %s, but request is %s", name, kind, text, formatQuantity(request, text))
		case limit != nil && limit.Cmp(want) < 0:
			complain("minimum %s usage per %s is %s, but limit is %s", name, kind, text, formatQuantity(limit, text))
		}
	})
	each("max", func(name, text string, want, request, limit *big.Rat) {
		switch {
		case limited && limit == nil:
			complain("maximum %s usage per %s is %s.  No limit is specified", name, kind, text)
		case limited && limit.Cmp(want) > 0:
			complain("maximum %s usage per %s is %s, but limit is %s", name, kind, text, formatQuantity(limit, text))
		case !limited && request == nil:
			complain("maximum %s usage per %s is %s.  No request is specified", name, kind, text)
		case request != nil && request.Cmp(want) > 0:
			complain("maximum %s usage per %s is %s, but request is %s", name, kind, text, formatQuantity(request, text))
		}
	})
	if !limited {
		return wrong
	}
	each("maxLimitRequestRatio", func(name, text string, want, request, limit *big.Rat) {
		const ratio = "%s max limit to request ratio per %s is %s, "
		switch {
		case request == nil || request.Sign() == 0:
			complain(ratio+"but no request is specified or request is 0", name, kind, text)
		case limit == nil || limit.Sign() == 0:
			complain(ratio+"but no limit is specified or limit is 0", name, kind, text)
		default:
			if have := new(big.Rat).Quo(limit, request); have.Cmp(want) > 0 {
				f, _ := have.Float64()
				complain(ratio+"but provided ratio is %f", name, kind, text, f)
			}
		}
	})
	return wrong
}
