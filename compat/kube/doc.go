// Package kube puts a real kube-apiserver over a store and real clients in front
// of it: kubectl and client-go. Both programs are built from their Go module, by
// `make -C compat kube-bin`; the module upstream beside this package pins them.
//
// What is compared:
//
//   - Objects (objects_test.go): one object of every kind that kube-apiserver
//     persists is written; its key must be the one Kubernetes expects, and what
//     kvctl makes of the stored bytes must be what kubectl prints.
//   - Tables (tables_test.go): the columns in which kvctl shows objects are those
//     that kube-apiserver makes for kubectl, for states that are hard to bring about;
//     names, scopes and short names of resources are those it serves.
//   - Failover (failover_test.go): the store's leader is killed while objects are
//     written and informers watch; at rest every informer equals a list, and what
//     was acknowledged is there.
//   - Script (script_test.go): kubectl's commands, one after the other, against
//     the kube-apiserver and against kvd's own resource layer.
//   - Requests (requests_test.go, documents_test.go): HTTP requests to both, and
//     their answers field by field.
//   - Interop (interop_test.go): a kube-apiserver and the resource layer on one store
//     hand objects of every kind to each other, and watches of both tell the same.
//
// Tests need the programs and minutes, so that they are targets of their own and
// no part of `make test`.
package kube
