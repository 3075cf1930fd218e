// Package workload makes the traffic of chaos runs. Every value that it writes
// carries a tag which nobody else writes, so that package oracle can tell whose
// write it sees.
//
// A Source says what one client asks next and learns from the answers: Mixed
// takes some of everything that etcd's API has, Lists appends to lists by guarded
// transactions, Locks takes leases and writes under fenced locks, Registry does
// what the API server of Kubernetes does. Sources take chance from the seed alone;
// the simulator drives them one by one.
//
// For real clusters Start runs many clients, watchers and a compactor against a
// Cluster, and records everything. A Cluster makes connections: Direct to one
// member by plain gRPC, Client through our client library; the nested module
// compat has one through etcd's.
package workload
