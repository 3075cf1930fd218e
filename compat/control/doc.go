// Package control puts what controllers are made of in front of kvd's resource
// layer and kills the members under it: client-go's informers, and managers of
// controller-runtime. Nothing but kvd runs, and no kube-apiserver.
//
//   - Informers (informers_test.go): typed, dynamic and of metadata, with their
//     first state streamed or listed, while writers create, relabel and delete, and
//     the store's leader and the member that serves an informer are killed.
//   - Managers (managers_test.go): processes that hold one Lease in turn, one of
//     which is killed, and what their controller makes of Widgets.
//   - Rollout (rollout_test.go): a controller of Deployments and a kubelet
//     replace pods while leaders are killed.
//
// All is judged by the history of the store itself (truth.go): a watch of all keys
// through etcd's client. What the clients were told is recorded where they
// read it (wire.go), so that each list and each watch is judged by itself (judge.go),
// whatever client-go makes of it.
//
// Members are reached through an address that forwards to one of them (front.go),
// as a control plane has a load balancer.
package control
