// Package bench measures the resource layer of kvd beside a kube-apiserver over
// etcd, in one run on one machine.
//
// Each side is one member of its store with real syncs, TLS, RBAC and a bearer
// token; left, a kube-apiserver stands before it. Both are asked by the same HTTP
// client, which decodes nothing, over HTTP/2 where the server offers it. What counts
// is CPU and memory of all processes of a side, from /proc, and their ratio. Rounds
// alternate, the median counts (package compat/bench).
//
// The pods are made to be as large on one side as on the other: what the servers fill
// in by themselves differs, so the rest is padded until the answer to a GET has
// podBytes.
package bench
