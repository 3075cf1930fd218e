package resource

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// listOptions are what a list or a watch is asked for with.
type listOptions struct {
	labels, fields string
	version        string // resourceVersion as given
	rev            int64  // its number
	match          string // resourceVersionMatch
	limit          int64
	start          *position64 // of a continued list
	watch          bool
	bookmarks      bool
	initial        bool // sendInitialEvents
	timeout        time.Duration
}

// position64 is where a continued list goes on: its revision (-1: the latest) and
// the first key below the range's prefix.
type position64 struct {
	rev   int64
	start string
}

const (
	matchExact     = "Exact"
	matchNotOlder  = "NotOlderThan"
	continueFormat = "meta.k8s.io/v1"
)

func listOptionsOf(q url.Values) (*listOptions, error) {
	o := &listOptions{
		labels: q.Get("labelSelector"), fields: q.Get("fieldSelector"),
		version: q.Get("resourceVersion"), match: q.Get("resourceVersionMatch"),
		watch: truth(q.Get("watch")), bookmarks: truth(q.Get("allowWatchBookmarks")),
		initial: truth(q.Get("sendInitialEvents")),
	}
	var err error
	if v := o.version; v != "" {
		if o.rev, err = strconv.ParseInt(v, 10, 64); err != nil || o.rev < 0 {
			f := unreadable("resourceVersion", v)
			if !o.watch {
				f.Code, f.Reason, f.Message = http.StatusBadRequest, "BadRequest", "invalid resource version: "+f.Message
			}
			return nil, f
		}
	}
	if v := q.Get("limit"); v != "" {
		if o.limit, err = strconv.ParseInt(v, 10, 64); err != nil {
			return nil, badRequest("strconv.ParseInt: parsing %q: invalid syntax", v)
		}
		o.limit = max(o.limit, 0)
	}
	if v := q.Get("timeoutSeconds"); v != "" {
		seconds, err := strconv.ParseInt(v, 10, 32)
		if err != nil {
			return nil, badRequest("strconv.ParseInt: parsing %q: invalid syntax", v)
		}
		o.timeout = time.Duration(max(seconds, 0)) * time.Second
	}
	if v := q.Get("continue"); v != "" {
		if o.match != "" {
			return nil, optionsInvalid("ListOptions", field.Forbidden(field.NewPath("resourceVersionMatch"), "resourceVersionMatch is forbidden when continue is provided"))
		}
		if o.start, err = parseContinue(v); err != nil {
			return nil, err
		}
	}
	return o, o.check(q.Has("sendInitialEvents"))
}

func truth(s string) bool { return s == "true" || s == "1" }

// check refuses combinations that mean nothing.
func (o *listOptions) check(initialGiven bool) error {
	wrong := func(name, why string) error {
		return optionsInvalid("ListOptions", field.Forbidden(field.NewPath(name), why))
	}
	switch {
	case o.match != "" && o.match != matchExact && o.match != matchNotOlder:
		return optionsInvalid("ListOptions", field.NotSupported(field.NewPath("resourceVersionMatch"), o.match, []string{matchExact, matchNotOlder, ""}))
	case o.watch && initialGiven && o.match != matchNotOlder:
		return wrong("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
	case o.watch && !initialGiven && o.match != "":
		return wrong("resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
	case o.watch:
		return nil
	case initialGiven:
		return wrong("sendInitialEvents", "sendInitialEvents is forbidden for list")
	case o.match != "" && o.version == "":
		return wrong("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
	case o.match == matchExact && o.version == "0":
		return wrong("resourceVersionMatch", `resourceVersionMatch "exact" is forbidden for resourceVersion "0"`)
	case o.start != nil && o.version != "" && o.version != "0":
		return badRequest("specifying resource version is not allowed when using continue")
	}
	return nil
}

// token is the JSON of a continue token.
type token struct {
	Version string `json:"v"`
	Rev     int64  `json:"rev"`
	Start   string `json:"start"`
}

func continueToken(rev int64, start string) string {
	b, _ := json.Marshal(token{continueFormat, rev, start}) // strings and a number
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseContinue reads a token. What it names stays below the list's prefix: a
// path that climbs is refused.
func parseContinue(s string) (*position64, error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	var t token
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	const invalid = "invalid continue token: continue key is not valid: "
	switch {
	case err != nil:
		return nil, badRequest(invalid+"%v", err)
	case t.Version != continueFormat:
		return nil, badRequest(invalid+"server does not recognize this encoded version %s", t.Version)
	case t.Rev == 0:
		return nil, badRequest(invalid + "incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case t.Start == "":
		return nil, badRequest(invalid + "encoded start key empty (version meta.k8s.io/v1)")
	}
	clean := strings.TrimRight(t.Start, "\x00")
	if cleaned := path.Clean("/" + clean); cleaned != "/"+strings.TrimSuffix(clean, "/") {
		return nil, badRequest(invalid+"%s", t.Start)
	}
	return &position64{t.Rev, t.Start}, nil
}

// optionKinds are what a write is asked for with, beside its object.
var optionKinds = map[string]string{"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions", "delete": "DeleteOptions", "deletecollection": "DeleteOptions"}

// dryRun reads the options of a write, and reports whether it wants everything but
// the effect.
func (c *call) dryRun() (bool, error) {
	kind := optionKinds[c.verb]
	dry, err := dryRunOf(kind, c.query["dryRun"])
	if err != nil || kind == "DeleteOptions" {
		return dry, err
	}
	manager := c.query.Get("fieldManager")
	if len(manager) > maxManager {
		return false, optionsInvalid(kind, field.TooLong(field.NewPath("fieldManager"), "", maxManager))
	}
	for i, r := range manager {
		if !unicode.IsPrint(r) {
			return false, optionsInvalid(kind, field.Invalid(field.NewPath("fieldManager"), manager, fmt.Sprintf("invalid character %#U (at position %d)", r, i)))
		}
	}
	modes := []string{"", "Ignore", "Strict", "Warn"}
	if mode := c.query.Get("fieldValidation"); !slices.Contains(modes, mode) {
		return false, optionsInvalid(kind, field.NotSupported(field.NewPath("fieldValidation"), mode, modes))
	}
	return dry, nil
}

// dryRunOf reads the option dryRun of options of a kind.
func dryRunOf(kind string, values []string) (bool, error) {
	if slices.ContainsFunc(values, func(v string) bool { return v != "All" }) {
		return false, optionsInvalid(kind, field.NotSupported(field.NewPath("dryRun"), values, []string{"All"}))
	}
	return len(values) > 0, nil
}
