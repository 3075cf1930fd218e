// Package ctl runs one script of etcdctl commands against two stores and compares
// what etcdctl prints, its exit codes included.
//
// Masked are ids, terms, raft indexes, sizes, endpoints and durations (mask.go),
// nothing else.
package ctl
