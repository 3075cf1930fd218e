package resource

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/resource/object"
)

// Failure is an answer that is not the one asked for: a Status object with its
// HTTP code. Texts and reasons are those of a kube-apiserver; clients act on code,
// reason and causes, people read the text.
type Failure struct {
	Code       int
	Reason     string
	Message    string
	Kind       string // of details: the resource, or the kind for Invalid
	Group      string
	Name       string
	UID        string
	RetryAfter int // seconds; 0: none
	Causes     []Cause
	Continue   string // of an expired list: where to go on, inconsistently
	// Generic: it is about the request, not an object; its details are there, and empty.
	Generic bool
	// Plain is the answer's text, if it is no Status object: of paths where there is no API.
	Plain string
}

// Cause is one of a failure's details.
type Cause struct{ Reason, Message, Field string }

func (f *Failure) Error() string { return f.Message }

// status is the failure as the object that clients get.
func (f *Failure) status() object.Object {
	meta := object.Object{}
	if f.Continue != "" {
		meta["continue"] = f.Continue
	}
	o := object.Object{
		"kind": "Status", "apiVersion": "v1", "metadata": meta, "status": "Failure",
		"message": f.Message, "code": f.Code,
	}
	if f.Reason != "" {
		o["reason"] = f.Reason
	}
	details := object.Object{}
	for name, v := range map[string]string{"name": f.Name, "group": f.Group, "kind": f.Kind, "uid": f.UID} {
		if v != "" {
			details[name] = v
		}
	}
	var causes []any
	for _, c := range f.Causes {
		cause := object.Object{"reason": c.Reason, "message": c.Message}
		if c.Field != "" {
			cause["field"] = c.Field
		}
		causes = append(causes, cause)
	}
	if causes != nil {
		details["causes"] = causes
	}
	if f.RetryAfter > 0 {
		details["retryAfterSeconds"] = f.RetryAfter
	}
	if len(details) > 0 || f.Generic {
		o["details"] = details
	}
	return o
}

// about names the object that a failure is about.
func (k *Kind) about(name string, code int, reason, format string, args ...any) *Failure {
	return &Failure{Code: code, Reason: reason, Kind: k.Plural, Group: k.Group, Name: name, Message: fmt.Sprintf(format, args...)}
}

// qualified is the resource as messages name it: deployments.apps.
func (k *Kind) qualified() string { return qualified(k.Plural, k.Group) }

func qualified(plural, group string) string {
	if group == "" {
		return plural
	}
	return plural + "." + group
}

func notFound(k *Kind, name string) *Failure {
	return k.about(name, http.StatusNotFound, "NotFound", "%s %q not found", k.qualified(), name)
}

func alreadyExists(k *Kind, name string) *Failure {
	return k.about(name, http.StatusConflict, "AlreadyExists", "%s %q already exists", k.qualified(), name)
}

func conflict(k *Kind, name, why string) *Failure {
	return k.about(name, http.StatusConflict, "Conflict", "Operation cannot be fulfilled on %s %q: %s", k.qualified(), name, why)
}

const modified = "the object has been modified; please apply your changes to the latest version and try again"

func forbidden(k *Kind, name, why string) *Failure {
	return k.about(name, http.StatusForbidden, "Forbidden", "%s %q is forbidden: %s", k.qualified(), name, why)
}

// Kinds of causes that invalid has.
const (
	causeRequired  = "FieldValueRequired"
	causeInvalid   = "FieldValueInvalid"
	causeForbidden = "FieldValueForbidden"
	causeNotFound  = "FieldValueNotFound"
	causeDuplicate = "FieldValueDuplicate"
	causeType      = "FieldValueTypeInvalid"
	causeSupported = "FieldValueNotSupported"
)

// invalid refuses an object for its content. The message of each cause has what
// follows the field's name.
func invalid(k *Kind, name string, causes ...Cause) *Failure {
	texts := make([]string, len(causes))
	for i, c := range causes {
		texts[i] = c.Message
		if c.Field != "" {
			texts[i] = c.Field + ": " + c.Message
		}
	}
	why := strings.Join(texts, ", ")
	if len(texts) > 1 {
		why = "[" + why + "]"
	}
	kind := k.Name
	if k.Group != "" {
		kind += "." + k.Group
	}
	return &Failure{
		Code: http.StatusUnprocessableEntity, Reason: "Invalid", Kind: k.Name, Group: k.Group, Name: name, Causes: causes,
		Message: fmt.Sprintf("%s %q is invalid: %s", kind, name, why),
	}
}

// causeOf is one of the field errors that kube-apiserver and apimachinery share.
func causeOf(e *field.Error) Cause { return Cause{string(e.Type), e.ErrorBody(), e.Field} }

// optionsInvalid refuses what a request asks for beside its object: kind is
// CreateOptions, DeleteOptions and so on.
func optionsInvalid(kind string, e *field.Error) *Failure {
	return invalid(&Kind{Name: kind, Group: metaGroup}, "", causeOf(e))
}

func badRequest(format string, args ...any) *Failure {
	return &Failure{Code: http.StatusBadRequest, Reason: "BadRequest", Message: fmt.Sprintf(format, args...)}
}

func unsupportedMedia(know []string) *Failure {
	return &Failure{Code: http.StatusUnsupportedMediaType, Reason: "UnsupportedMediaType",
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(know, ", ")}
}

func notAllowed() *Failure {
	return &Failure{Code: http.StatusMethodNotAllowed, Reason: "MethodNotAllowed", Message: "the server does not allow this method on the requested resource", Generic: true}
}

// noSuchPath is the answer to a path or a resource that is not served.
func noSuchPath() *Failure {
	return &Failure{Code: http.StatusNotFound, Reason: "NotFound", Message: "the server could not find the requested resource", Generic: true}
}

// noSuchPage is the answer to a path of no API.
func noSuchPage() *Failure { return &Failure{Code: http.StatusNotFound, Plain: "404 page not found\n"} }

// notAcceptable is the answer to who takes nothing that there is.
func notAcceptable(format string, args ...any) *Failure {
	return &Failure{Code: http.StatusNotAcceptable, Reason: "NotAcceptable", Message: fmt.Sprintf(format, args...)}
}

// unreadable is the answer to a resource version that is none: a kube-apiserver's, which
// has no better code for it.
func unreadable(name, given string) *Failure {
	prefix := ""
	if name != "" {
		prefix = fmt.Sprintf("%s: Invalid value: %q: ", name, given)
	}
	return &Failure{Code: http.StatusInternalServerError, Message: prefix + fmt.Sprintf("strconv.ParseUint: parsing %q: invalid syntax", given)}
}

func expired(message string) *Failure {
	return &Failure{Code: http.StatusGone, Reason: "Expired", Message: message}
}

func tooLarge(want, have int64) *Failure {
	return &Failure{Code: http.StatusGatewayTimeout, Reason: "Timeout", RetryAfter: 1,
		Message: fmt.Sprintf("Timeout: Too large resource version: %d, current: %d", want, have),
		Causes:  []Cause{{Reason: "ResourceVersionTooLarge", Message: "Too large resource version"}}}
}

func timedOut() *Failure {
	return &Failure{Code: http.StatusGatewayTimeout, Reason: "Timeout", Message: "Timeout: request did not complete within the allotted timeout"}
}

func tooMany(message string) *Failure {
	return &Failure{Code: http.StatusTooManyRequests, Reason: "TooManyRequests", Message: message, RetryAfter: 1}
}

func tooLong(message string) *Failure {
	return &Failure{Code: http.StatusRequestEntityTooLarge, Reason: "RequestEntityTooLarge", Message: message}
}

// failureOf is the one place where errors become answers.
func failureOf(err error) *Failure {
	var f *Failure
	var refusal *api.Error
	var body *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, mvcc.ErrCompacted):
		return expired("The resourceVersion for the provided list is too old.")
	case errors.As(err, &body):
		return tooLong(fmt.Sprintf("Request entity too large: limit is %d", body.Limit))
	case errors.Is(err, api.ErrRequestTooLarge):
		return tooLong("etcdserver: request is too large")
	case errors.As(err, &refusal):
		return &Failure{Code: http.StatusInternalServerError, Reason: "InternalError", Message: refusal.Text}
	}
	return &Failure{Code: http.StatusInternalServerError, Reason: "InternalError",
		Message: "Internal error occurred: " + err.Error(), Causes: []Cause{{Message: err.Error()}}}
}

// asFailure returns the failure that an error is, or nil.
func asFailure(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return nil
}
