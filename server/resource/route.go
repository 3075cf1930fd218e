package resource

import (
	"net/http"
	"strings"
)

// Target is what a path names: /api/v1/… or /apis/group/version/… with
// [watch/][namespaces/ns/]plural[/name[/subresource]].
type Target struct {
	Group, Version string
	Namespace      string
	Plural         string
	Name           string
	Sub            string
	Tail           string // what follows the subresource
	Watch          bool   // it is watched, as clients of old ask
}

// targetOf reads a path. ok is false when it names no resource.
func targetOf(path string) (t Target, ok bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		t.Version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		t.Group, t.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return t, false
	}
	if parts[0] == "watch" && len(parts) > 1 {
		t.Watch, parts = true, parts[1:]
	}
	// A namespace is a resource with subresources of its own, and what others live in.
	if parts[0] == "namespaces" && len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
		t.Namespace, parts = parts[1], parts[2:]
	}
	t.Plural = parts[0]
	if len(parts) > 1 {
		t.Name = parts[1]
	}
	if len(parts) > 2 {
		t.Sub = parts[2]
	}
	t.Tail = strings.Join(parts[min(3, len(parts)):], "/")
	return t, t.Plural != ""
}

// verbOf is what a request does, in the words of RBAC.
func verbOf(method string, t Target, watch bool) string {
	switch method {
	case http.MethodGet:
		switch {
		case watch:
			return "watch"
		case t.Name == "":
			return "list"
		}
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if t.Name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return ""
}
