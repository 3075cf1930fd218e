package resource

import (
	"fmt"
	"slices"
	"time"

	"github.com/keelson-io/keelson/server/resource/object"
)

// The ways of an object out of the store, as pure functions:
//
//	alive ── delete, nothing holds it ──────────────────► gone
//	alive ── delete, finalizers or grace hold it ──► dying
//	dying ── the last finalizer goes, no grace left ────► gone
//	dying ── delete with grace 0, no finalizers ────────► gone
//
// Dying means that deletionTimestamp is set; it never goes back.

// Finalizers that the delete verb sets itself.
const (
	finalizerOrphan     = "orphan"
	finalizerForeground = "foregroundDeletion"
)

// deleteOptions is what a delete is asked for with.
type deleteOptions struct {
	uid, version string // preconditions; empty: none
	grace        *int64
	propagation  string // Background, Foreground, Orphan or empty
	dry          bool
}

// doom says what a delete makes of an object: nil means that it goes at once.
// unchanged reports that the object is dying already and stays as it is.
func doom(k *Kind, old object.Object, opts deleteOptions, now time.Time) (next object.Object, err error) {
	name := object.String(old, "metadata", "name")
	if have := object.String(old, "metadata", "uid"); opts.uid != "" && opts.uid != have {
		return nil, unlike(k, name, "the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", opts.uid, have)
	}
	if have := object.String(old, "metadata", "resourceVersion"); opts.version != "" && opts.version != have {
		return nil, unlike(k, name, "the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", opts.version, have)
	}
	grace := graceOf(k, old, opts)
	dying := object.String(old, "metadata", "deletionTimestamp") != ""
	finalizers := object.Strings(old, "metadata", "finalizers")
	if orphansUnlessAsked[k.qualified()] && opts.propagation == "" && !slices.Contains(finalizers, finalizerForeground) {
		opts.propagation = "Orphan"
	}
	finalizers = propagate(finalizers, opts.propagation)
	left, hasGrace := object.Int(old, "metadata", "deletionGracePeriodSeconds")
	if dying && hasGrace {
		grace = min(grace, left) // it may only become shorter
	}
	if len(finalizers) == 0 && grace == 0 && len(object.List(old, "spec", "finalizers")) == 0 {
		return nil, nil
	}
	next = object.Copy(old)
	meta := object.Map(next, "metadata")
	if len(finalizers) > 0 {
		meta["finalizers"] = object.Anys(finalizers)
	} else {
		delete(meta, "finalizers")
	}
	if dying && (!hasGrace || grace == left) {
		return next, nil
	}
	meta["deletionTimestamp"] = timestamp(now.Add(time.Duration(grace) * time.Second))
	meta["deletionGracePeriodSeconds"] = grace
	if n, ok := object.Int(meta, "generation"); ok && !dying {
		meta["generation"] = n + 1
	}
	if k.Group == "" && k.Plural == "namespaces" {
		object.Set(next, "Terminating", "status", "phase")
		delete(meta, "deletionGracePeriodSeconds")
	}
	return next, nil
}

// unlike refuses a delete of an object that is not the one that was meant. The message
// names the kind where others name the resource.
func unlike(k *Kind, name, format string, args ...any) error {
	return conflict(&Kind{Group: k.Group, Plural: k.Name}, name, fmt.Sprintf(format, args...))
}

// orphansUnlessAsked are kinds that are older than the collector: who deletes one and
// says no more keeps what it owned.
var orphansUnlessAsked = set("jobs.batch", "replicationcontrollers")

// graceOf is how long an object that is asked to go may stay. Only pods that run
// somewhere have something to end.
func graceOf(k *Kind, old object.Object, opts deleteOptions) int64 {
	if k.Group != "" || k.Plural != "pods" {
		return 0
	}
	phase := object.String(old, "status", "phase")
	if object.String(old, "spec", "nodeName") == "" || phase == "Failed" || phase == "Succeeded" {
		return 0
	}
	if opts.grace != nil {
		return max(*opts.grace, 0)
	}
	if n, ok := object.Int(old, "spec", "terminationGracePeriodSeconds"); ok {
		return n
	}
	return 30
}

// propagate sets the finalizer that makes the collector do what was asked for.
func propagate(finalizers []string, policy string) []string {
	want := ""
	switch policy {
	case "Orphan":
		want = finalizerOrphan
	case "Foreground":
		want = finalizerForeground
	case "Background":
	default:
		return finalizers
	}
	out := slices.DeleteFunc(slices.Clone(finalizers), func(f string) bool {
		return (f == finalizerOrphan || f == finalizerForeground) && f != want
	})
	if want != "" && !slices.Contains(out, want) {
		out = append(out, want)
	}
	return out
}

// released reports whether nothing holds a dying object any more.
func released(o object.Object) bool {
	if object.String(o, "metadata", "deletionTimestamp") == "" || len(object.List(o, "metadata", "finalizers")) > 0 {
		return false
	}
	if len(object.List(o, "spec", "finalizers")) > 0 {
		return false // of a namespace
	}
	grace, _ := object.Int(o, "metadata", "deletionGracePeriodSeconds")
	return grace == 0
}
