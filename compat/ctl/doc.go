// Package ctl runs scripts of etcdctl and etcdutl commands against two stores and
// compares what they print, their exit codes included: for three members, and for
// one over TLS with users. Every command of both tools is in a script, or
// elsewhere (step.go) says why not; a test walks through their help.
//
// Masked are ids, terms, raft indexes, sizes, endpoints, durations and the hashes
// of whole files (mask.go), nothing else.
//
// Read step.go, script.go, script_auth.go, run.go.
package ctl
