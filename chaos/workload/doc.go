// Package workload makes up the traffic of chaos runs. Every value that it writes
// carries a tag which nobody else writes, so that package oracle can tell whose
// write it sees.
//
// A Source says what one client asks next and learns from what became of it:
//
//	Mixed     some of everything that etcd's API has, on keys that all use
//	Lists     lists that grow by guarded transactions, for cycles to show (O2)
//	Locks     leases, locks on them, and writes fenced by the lock's token (O7)
//	Registry  what the API server of Kubernetes does
//
// Sources take chance from what they are given alone, so a seed decides all of
// it but the answers. The simulator drives them by itself; package load drives
// them against real clusters.
package workload
