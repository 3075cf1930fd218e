package resource

import (
	"net/http"
	"slices"

	"github.com/keelson-io/keelson/server/resource/object"
)

// review answers the resources that store nothing: questions about rights.
func (c *call) review() error {
	s, err := c.decodeBody()
	if err != nil {
		return err
	}
	o := s.object
	o["apiVersion"], o["kind"] = c.kind.APIVersion(), c.kind.Name
	switch c.kind.Name {
	case "SelfSubjectReview":
		o["status"] = object.Object{"userInfo": userInfo(c.user)}
	case "SelfSubjectAccessReview":
		err = c.reviewAccess(o, c.user)
	case "SubjectAccessReview", "LocalSubjectAccessReview":
		u := &User{Name: object.String(o, "spec", "user"), UID: object.String(o, "spec", "uid"), Groups: object.Strings(o, "spec", "groups")}
		err = c.reviewAccess(o, u)
	case "SelfSubjectRulesReview":
		err = c.reviewRules(o)
	default:
		o["status"] = object.Object{"authenticated": false}
		if c.layer.cfg.Tokens != nil {
			if u, ok := c.layer.cfg.Tokens.Lookup(object.String(o, "spec", "token")); ok {
				o["status"] = object.Object{"authenticated": true, "user": userInfo(u)}
			}
		}
	}
	if err != nil {
		return err
	}
	if object.Map(o, "metadata") == nil {
		o["metadata"] = object.Object{}
	}
	return c.send(http.StatusCreated, object.Encode(o))
}

func userInfo(u *User) object.Object {
	o := object.Object{"username": u.Name, "groups": object.Anys(u.Groups)}
	if u.UID != "" {
		o["uid"] = u.UID
	}
	return o
}

func (c *call) reviewAccess(o object.Object, u *User) error {
	w := &wish{isPathNotThing: true, verb: object.String(o, "spec", "nonResourceAttributes", "verb"), path: object.String(o, "spec", "nonResourceAttributes", "path")}
	if a := object.Map(o, "spec", "resourceAttributes"); a != nil {
		w = &wish{
			verb: object.String(a, "verb"), group: object.String(a, "group"), plural: object.String(a, "resource"), sub: object.String(a, "subresource"),
			namespace: object.String(a, "namespace"), name: object.String(a, "name"),
		}
	} else if object.Map(o, "spec", "nonResourceAttributes") == nil {
		return invalid(c.kind, "", Cause{causeInvalid, "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified", "spec.resourceAttributes"})
	}
	ok, err := c.layer.allowed(c.ctx, u, w)
	if err != nil {
		return err
	}
	o["status"] = object.Object{"allowed": ok}
	return nil
}

func (c *call) reviewRules(o object.Object) error {
	rules := []rule{{verbs: []string{"*"}, groups: []string{"*"}, resources: []string{"*"}}, {verbs: []string{"*"}, paths: []string{"*"}}}
	if c.layer.cfg.Authorize && !slices.Contains(c.user.Groups, groupMasters) {
		p, err := c.layer.policy(c.ctx)
		if err != nil {
			return err
		}
		rules = p.rules(c.user, object.String(o, "spec", "namespace"))
	}
	things, paths := []any{}, []any{}
	for _, r := range rules {
		if len(r.paths) > 0 {
			paths = append(paths, object.Object{"verbs": object.Anys(r.verbs), "nonResourceURLs": object.Anys(r.paths)})
			continue
		}
		thing := object.Object{"verbs": object.Anys(r.verbs), "apiGroups": object.Anys(r.groups), "resources": object.Anys(r.resources)}
		if len(r.names) > 0 {
			thing["resourceNames"] = object.Anys(r.names)
		}
		things = append(things, thing)
	}
	o["status"] = object.Object{"resourceRules": things, "nonResourceRules": paths, "incomplete": false}
	return nil
}
