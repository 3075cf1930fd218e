// Package resource serves the Kubernetes API on the store, in each member that
// is told to (--listen-resource-urls): kubectl, informers and controllers work
// without a kube-apiserver. It knows the store through one interface (store.go).
//
// # Model
//
// A kind (kinds.go) is one served version of a resource: built in, or defined at
// run time by a CustomResourceDefinition. Objects lie under the keys that
// a kube-apiserver uses, as compact JSON; the mod revision of the key is the
// object's resourceVersion and is never stored. Values that a kube-apiserver
// wrote as protobuf are read, too.
//
// # Life of a write
//
//  1. serve.go: identity, admission, route.go: what is asked for of which kind
//  2. body.go: JSON, YAML or protobuf becomes an object
//  3. create.go, update.go, patch.go, delete.go: from the object that is stored
//     and the request to the one to be stored; pure functions in prepare.go and
//     doom.go decide
//  4. commit.go: one transaction that compares the key, and what else must not
//     have changed (namespace, quotas); a lost race begins again at 3
//  5. the answer carries the transaction's own revision
//
// # Life of a list
//
// cache.go keeps each collection that was asked for: its objects' bytes with the
// resource version in place, and their parsed metadata. A consistent list asks
// the member for a read barrier, waits until the cache has caught up with what
// was published, and copies bytes. Older revisions are read from the store.
//
// # Life of a watch
//
// One goroutine (feed.go) follows the store and tells each collection. A collection
// keeps its recent changes in a ring (ring.go); a watch is a position in it, so
// nothing is queued for anybody and a slow watcher hurts only itself: once the ring
// has passed it, it reads the store's history (history.go), and is told 410 when
// that is gone. The frame of a change is encoded once and shared (change.go), and goes
// past net/http where that can be done (package lane). Of the watches that share a connection one
// is woken for all (crowd.go).
//
// # Controllers
//
// What an API server does not do but its users count on is done by the member
// that leads the cluster: gc.go collects garbage, namespaces.go empties
// namespaces, quota.go counts. Two that think they lead do no harm: each act
// compares what it saw.
package resource
