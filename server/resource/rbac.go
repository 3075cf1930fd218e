package resource

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Who may do what is a pure question about roles, bindings, a user and a wish.

// wish is something that a user wants to do.
type wish struct {
	verb           string
	group, plural  string
	sub            string
	namespace      string // empty: everywhere, or not in a namespace
	name           string
	path           string // of what is no resource
	isPathNotThing bool
}

// what is the wish in words.
func (w *wish) resource() string {
	if w.sub != "" {
		return w.plural + "/" + w.sub
	}
	return w.plural
}

// rule permits verbs on resources, or on paths.
type rule struct {
	verbs, groups, resources, names, paths []string
}

func rulesOf(o object.Object) []rule {
	var out []rule
	for _, v := range object.List(o, "rules") {
		r, _ := v.(object.Object)
		out = append(out, rule{
			object.Strings(r, "verbs"), object.Strings(r, "apiGroups"), object.Strings(r, "resources"),
			object.Strings(r, "resourceNames"), object.Strings(r, "nonResourceURLs"),
		})
	}
	return out
}

func (r *rule) permits(w *wish) bool {
	if !has(r.verbs, w.verb) {
		return false
	}
	if w.isPathNotThing {
		return slices.ContainsFunc(r.paths, func(p string) bool {
			return p == "*" || p == w.path || strings.HasSuffix(p, "*") && strings.HasPrefix(w.path, strings.TrimSuffix(p, "*"))
		})
	}
	return has(r.groups, w.group) && r.covers(w) && (len(r.names) == 0 || slices.Contains(r.names, w.name))
}

// covers reports whether the rule names the resource: by itself, with all others,
// or by its subresource.
func (r *rule) covers(w *wish) bool {
	return has(r.resources, w.resource()) || w.sub != "" && slices.Contains(r.resources, "*/"+w.sub)
}

func has(list []string, s string) bool { return slices.Contains(list, "*") || slices.Contains(list, s) }

// binding gives the rules of a role to subjects.
type binding struct {
	subjects []object.Object
	rules    []rule
}

func (b *binding) binds(u *User, namespace string) bool {
	return slices.ContainsFunc(b.subjects, func(s object.Object) bool {
		name := object.String(s, "name")
		switch object.String(s, "kind") {
		case "User":
			return u.Name == name
		case "Group":
			return slices.Contains(u.Groups, name)
		case "ServiceAccount":
			ns := object.String(s, "namespace")
			if ns == "" {
				ns = namespace
			}
			return u.Name == "system:serviceaccount:"+ns+":"+name
		}
		return false
	})
}

// policy is all roles and bindings, compiled.
type policy struct {
	everywhere []binding
	within     map[string][]binding // by namespace
}

// rbacObjects are the objects that a policy is made of.
type rbacObjects struct {
	roles, clusterRoles, bindings, clusterBindings []object.Object
}

func compile(in rbacObjects) *policy {
	roles := map[string][]rule{}
	for _, o := range in.clusterRoles {
		roles["/"+object.String(o, "metadata", "name")] = aggregated(o, in.clusterRoles)
	}
	for _, o := range in.roles {
		roles[object.String(o, "metadata", "namespace")+"/"+object.String(o, "metadata", "name")] = rulesOf(o)
	}
	p := &policy{within: map[string][]binding{}}
	make := func(o object.Object) binding {
		ns := ""
		if object.String(o, "roleRef", "kind") == "Role" {
			ns = object.String(o, "metadata", "namespace")
		}
		b := binding{rules: roles[ns+"/"+object.String(o, "roleRef", "name")]}
		for _, v := range object.List(o, "subjects") {
			if s, ok := v.(object.Object); ok {
				b.subjects = append(b.subjects, s)
			}
		}
		return b
	}
	for _, o := range in.clusterBindings {
		p.everywhere = append(p.everywhere, make(o))
	}
	for _, o := range in.bindings {
		ns := object.String(o, "metadata", "namespace")
		p.within[ns] = append(p.within[ns], make(o))
	}
	return p
}

// aggregated are a cluster role's rules, and those of the roles that its
// aggregation rule selects.
func aggregated(o object.Object, all []object.Object) []rule {
	out := rulesOf(o)
	for _, v := range object.List(o, "aggregationRule", "clusterRoleSelectors") {
		selector, _ := v.(object.Object)
		sel, err := labelSelector(selector)
		if err != nil {
			continue
		}
		for _, other := range all {
			set := labels.Set{}
			for name, v := range object.Map(other, "metadata", "labels") {
				set[name], _ = v.(string)
			}
			if sel.Matches(set) {
				out = append(out, rulesOf(other)...)
			}
		}
	}
	return out
}

// rules are what a user may do in a namespace (empty: everywhere).
func (p *policy) rules(u *User, namespace string) (out []rule) {
	for i := range p.everywhere {
		if b := &p.everywhere[i]; b.binds(u, "") {
			out = append(out, b.rules...)
		}
	}
	if namespace == "" {
		return out
	}
	for i := range p.within[namespace] {
		if b := &p.within[namespace][i]; b.binds(u, namespace) {
			out = append(out, b.rules...)
		}
	}
	return out
}

// permits reports whether a user may have a wish.
func (p *policy) permits(u *User, w *wish) bool {
	if slices.Contains(u.Groups, groupMasters) {
		return true
	}
	rules := p.rules(u, w.namespace)
	return slices.ContainsFunc(rules, func(r rule) bool { return r.permits(w) })
}

// exceeds returns the first of the rules that a user does not have himself: nobody gives away
// more than he has.
func (p *policy) exceeds(u *User, namespace string, wanted []rule) (string, bool) {
	if slices.Contains(u.Groups, groupMasters) {
		return "", false
	}
	own := p.rules(u, namespace)
	for _, r := range wanted {
		for _, w := range r.wishes() {
			if !slices.ContainsFunc(own, func(o rule) bool { return o.permits(&w) }) {
				return w.verb + " " + w.resource() + w.path, true
			}
		}
	}
	return "", false
}

// wishes are all single things that a rule permits; a star stays one.
func (r *rule) wishes() (out []wish) {
	names := r.names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, verb := range r.verbs {
		for _, path := range r.paths {
			out = append(out, wish{verb: verb, path: path, isPathNotThing: true})
		}
		for _, group := range r.groups {
			for _, resource := range r.resources {
				plural, sub, _ := strings.Cut(resource, "/")
				for _, name := range names {
					out = append(out, wish{verb: verb, group: group, plural: plural, sub: sub, name: name})
				}
			}
		}
	}
	return out
}
