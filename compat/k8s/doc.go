// Package k8s runs Kubernetes' own storage tests, unmodified, against a store
// that is a process.
//
// Those tests start an embedded etcd through one function, RunEtcd in
// pkg/storage/etcd3/testserver. The suite copies the module k8s.io/apiserver out
// of the module cache, puts testserver.go.txt in the place of that one file, and
// runs `go test` inside the copy, whose own go.mod and go.sum are complete. The
// replacement execs the binary that STORE_UNDER_TEST names. Nothing of the copy
// is part of this repository.
package k8s
