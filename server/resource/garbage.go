package resource

import (
	"slices"

	"github.com/keelson-io/keelson/server/resource/object"
)

// What is garbage is a pure question about all objects at once: garbage answers
// it, gc.go acts on the answer, after it has looked again.

// node is an object in the graph of owners.
type node struct {
	kind  *Kind
	entry *entry
}

// Things to do about an object.
type actKind uint8

const (
	actDelete     actKind = iota + 1 // no owner is left, or those that are wait for it to go
	actDisown                        // the owners named in uids are gone or wait; others are left
	actRelease                       // the finalizer has done what it was there for
	actOrphanRest                    // disown the dependents of a dying object, then release it
)

type act struct {
	what       actKind
	on         node
	uids       []string       // owners to take out of the object
	absent     []object.Owner // owners that were not seen: to be looked for before acting
	foreground bool           // a delete waits for the object's own dependents
	finalizer  string
	dependents []node // of actOrphanRest
}

// garbage says what is to be done. known reports whether an owner's kind is served:
// of what is not, nobody can say that it is gone.
func garbage(all []node, known func(object.Owner) bool) []act {
	byUID := make(map[string]node, len(all))
	dependents := map[string][]node{}
	for _, n := range all {
		byUID[n.entry.meta.UID] = n
		for _, o := range n.entry.meta.Owners {
			dependents[o.UID] = append(dependents[o.UID], n)
		}
	}
	var acts []act
	for _, n := range all {
		if a, ok := judge(n, byUID, dependents, known); ok {
			acts = append(acts, a)
		}
		if a, ok := discharge(n, dependents[n.entry.meta.UID]); ok {
			acts = append(acts, a)
		}
	}
	return acts
}

// judge looks at an object's owners: an owner is solid (it keeps the object),
// waits for its dependents to go, or is absent.
func judge(n node, byUID map[string]node, dependents map[string][]node, known func(object.Owner) bool) (act, bool) {
	solid := 0
	var waiting, absent []object.Owner
	for _, o := range n.entry.meta.Owners {
		owner, found := byUID[o.UID]
		inReach := found && (owner.entry.meta.Namespace == "" || owner.entry.meta.Namespace == n.entry.meta.Namespace)
		switch {
		case inReach && dies(owner.entry, finalizerForeground):
			waiting = append(waiting, o)
		case inReach || !known(o):
			solid++
		default:
			absent = append(absent, o)
		}
	}
	if len(waiting)+len(absent) == 0 {
		return act{}, false
	}
	a := act{on: n, absent: absent}
	for _, o := range slices.Concat(waiting, absent) {
		a.uids = append(a.uids, o.UID)
	}
	if solid > 0 {
		a.what = actDisown
		return a, true
	}
	a.what = actDelete
	a.foreground = len(waiting) > 0 && len(dependents[n.entry.meta.UID]) > 0
	return a, n.entry.meta.DeletionTimestamp == ""
}

// discharge looks whether a dying object's own finalizer is done.
func discharge(n node, dependents []node) (act, bool) {
	uid := n.entry.meta.UID
	switch {
	case dies(n.entry, finalizerOrphan):
		return act{what: actOrphanRest, on: n, finalizer: finalizerOrphan, uids: []string{uid}, dependents: dependents}, true
	case dies(n.entry, finalizerForeground):
		blocks := slices.ContainsFunc(dependents, func(d node) bool {
			return slices.ContainsFunc(d.entry.meta.Owners, func(o object.Owner) bool { return o.UID == uid && o.Blocks })
		})
		return act{what: actRelease, on: n, finalizer: finalizerForeground}, !blocks
	}
	return act{}, false
}

// dies reports whether an object is dying and held by a finalizer.
func dies(e *entry, finalizer string) bool {
	return e.meta.DeletionTimestamp != "" && slices.Contains(e.meta.Finalizers, finalizer)
}

// disown changes o: owners of these uids are gone from it.
func disown(o object.Object, uids []string) {
	refs := slices.DeleteFunc(slices.Clone(object.List(o, "metadata", "ownerReferences")), func(v any) bool {
		ref, _ := v.(object.Object)
		return slices.Contains(uids, object.String(ref, "uid"))
	})
	object.Set(o, refs, "metadata", "ownerReferences")
}

// release changes o: a finalizer is gone from it.
func release(o object.Object, finalizer string) {
	rest := slices.DeleteFunc(object.Strings(o, "metadata", "finalizers"), func(f string) bool { return f == finalizer })
	object.Set(o, object.Anys(rest), "metadata", "finalizers")
}
