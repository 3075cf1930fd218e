package resource

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/keelson-io/keelson/server/resource/object"
)

const rbacGroup = "rbac.authorization.k8s.io"

// judgement keeps the policy compiled while its objects do not change.
type judgement struct {
	mu struct {
		sync.Mutex
		at     [4]int64 // revisions of the four collections
		policy *policy
	}
}

// policy returns the policy of the moment, as this member knows it.
func (l *Layer) policy(ctx context.Context) (*policy, error) {
	var at [4]int64
	var snaps [4]snapshot
	for i, plural := range []string{"roles", "clusterroles", "rolebindings", "clusterrolebindings"} {
		k := l.catalog.Load().byPath[[3]string{rbacGroup, "v1", plural}]
		c, err := l.feed.collection(ctx, k)
		if err != nil {
			return nil, err
		}
		snaps[i] = c.snapshot(0)
		at[i] = snaps[i].rev
	}
	j := &l.judgement
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mu.policy != nil && j.mu.at == at {
		return j.mu.policy, nil
	}
	decode := func(s snapshot) (out []object.Object) {
		for _, e := range s.entries {
			if o, _, err := object.Decode(e.json); err == nil {
				out = append(out, o)
			}
		}
		return out
	}
	j.mu.at, j.mu.policy = at, compile(rbacObjects{decode(snaps[0]), decode(snaps[1]), decode(snaps[2]), decode(snaps[3])})
	return j.mu.policy, nil
}

// allowed says whether a user may have a wish.
func (l *Layer) allowed(ctx context.Context, u *User, w *wish) (bool, error) {
	if !l.cfg.Authorize || slices.Contains(u.Groups, groupMasters) {
		return true, nil
	}
	p, err := l.policy(ctx)
	if err != nil {
		return false, err
	}
	return p.permits(u, w), nil
}

// authorize refuses a request for a resource that the user may not make.
func (c *call) authorize() error {
	w := &wish{verb: c.verb, group: c.Group, plural: c.Plural, sub: c.Sub, namespace: c.Namespace, name: c.Name}
	ok, err := c.layer.allowed(c.ctx, c.user, w)
	if err != nil || ok {
		return err
	}
	where := "at the cluster scope"
	if c.Namespace != "" {
		where = fmt.Sprintf("in the namespace %q", c.Namespace)
	}
	group := c.Group
	return &Failure{Code: http.StatusForbidden, Reason: "Forbidden", Kind: c.Plural, Group: c.Group, Name: c.Name,
		Message: fmt.Sprintf("%s is forbidden: User %q cannot %s resource %q in API group %q %s",
			named(c.Plural, c.Group, c.Name), c.user.Name, c.verb, w.resource(), group, where)}
}

func named(plural, group, name string) string {
	if name == "" {
		return qualified(plural, group)
	}
	return fmt.Sprintf("%s %q", qualified(plural, group), name)
}

// openPaths may be read by anybody: probes and the version.
var openPaths = []string{"/healthz", "/livez", "/readyz", "/version"}

// authorizePath refuses what is no resource.
func (c *call) authorizePath() error {
	path := c.r.URL.Path
	if slices.Contains(openPaths, path) {
		return nil
	}
	verb := "get"
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		verb = "post"
	}
	ok, err := c.layer.allowed(c.ctx, c.user, &wish{verb: verb, path: path, isPathNotThing: true})
	if err != nil || ok {
		return err
	}
	return &Failure{Code: http.StatusForbidden, Reason: "Forbidden",
		Message: fmt.Sprintf("forbidden: User %q cannot %s path %q", c.user.Name, verb, path), Generic: true}
}

// impersonate makes the request another user's, if the sender may do that.
func (c *call) impersonate() error {
	name := c.r.Header.Get("Impersonate-User")
	groups := c.r.Header.Values("Impersonate-Group")
	if name == "" {
		if len(groups) > 0 {
			return badRequest("requested [] without impersonating a user name")
		}
		return nil
	}
	wishes := []wish{{verb: "impersonate", plural: "users", name: name}}
	for _, g := range groups {
		wishes = append(wishes, wish{verb: "impersonate", plural: "groups", name: g})
	}
	for i := range wishes {
		w := &wishes[i]
		ok, err := c.layer.allowed(c.ctx, c.user, w)
		if err != nil {
			return err
		}
		if !ok {
			return &Failure{Code: http.StatusForbidden, Reason: "Forbidden", Kind: w.plural, Name: w.name,
				Message: fmt.Sprintf("%s %q is forbidden: User %q cannot impersonate resource %q in API group \"\" at the cluster scope", w.plural, w.name, c.user.Name, w.plural)}
		}
	}
	u := &User{Name: name, Groups: slices.Clone(groups)}
	if name == anonymousUser {
		u.Groups = append(u.Groups, groupUnknown)
	} else if !slices.Contains(groups, groupKnown) {
		u.Groups = append(u.Groups, groupKnown)
	}
	c.user = u
	return nil
}

// refuseEscalation keeps users from giving away rights that they do not have: by
// a role, unless they may escalate, or by a binding, unless they may bind.
func (c *call) refuseEscalation(o, old object.Object) error {
	l := c.layer
	if old != nil && object.Equal(o["rules"], old["rules"]) && object.Equal(o["roleRef"], old["roleRef"]) && object.Equal(o["subjects"], old["subjects"]) {
		return nil // as before
	}
	if !l.cfg.Authorize || c.kind == nil || c.kind.Group != rbacGroup || slices.Contains(c.user.Groups, groupMasters) {
		return nil
	}
	p, err := l.policy(c.ctx)
	if err != nil {
		return err
	}
	rules, verb := rulesOf(o), "escalate"
	target := wish{group: rbacGroup, plural: c.Plural, namespace: c.Namespace, name: object.String(o, "metadata", "name")}
	if ref := object.Map(o, "roleRef"); ref != nil {
		verb, rules = "bind", nil
		target.plural, target.name = "clusterroles", object.String(ref, "name")
		ns := ""
		if object.String(ref, "kind") == "Role" {
			target.plural, ns = "roles", c.Namespace
		}
		cur, err := l.local(l.catalog.Load().byPath[[3]string{rbacGroup, "v1", target.plural}].key(ns, target.name))
		if err != nil {
			return err
		}
		if cur != nil {
			role, _, err := object.Decode(cur.json)
			if err != nil {
				return err
			}
			rules = rulesOf(role)
		}
	}
	target.verb = verb
	if p.permits(c.user, &target) {
		return nil
	}
	if what, more := p.exceeds(c.user, c.Namespace, rules); more {
		return forbidden(c.kind, object.String(o, "metadata", "name"),
			fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held: %s", c.user.Name, c.user.Groups, what))
	}
	return nil
}
