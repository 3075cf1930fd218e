// Package differential sends one generated sequence of requests to two stores
// and compares every answer, field by field.
//
// The generator (generate*.go) is a pure function of its seed. It knows nothing
// of the stores: where an interesting number depends on their state, it writes a
// symbol (symbol.go): "the current revision minus two", "the third lease whose id
// the server chose". The runner (run.go) resolves symbols just before a request is
// sent, the same way for both sides, and waits for both answers before the next
// request: so the stores are always in the same state and every field of an
// answer is determined.
//
// There are three modes. Plain; with users, where every request is sent by root,
// by one of a few users whose roles change all the time, by nobody, or with a
// token that is none (generate_auth.go); over TLS, which goes with both. Together
// they make every RPC of etcd's protocol but those that notGenerated names, with
// the suite that compares them instead.
//
// What is masked, and nothing else: header.cluster_id, header.member_id,
// header.raft_term; ids and addresses of members, tokens, hashes of whole
// histories (they hold lease ids), sizes and Raft's indexes (package wire); lease ids the server chose are replaced by the order in which
// they were granted; the remaining TTL of a lease may differ by ttlTolerance; the
// keys of a lease and the list of leases are compared as sets, because etcd gives
// them in the order of a Go map; RangeStream's chunks are joined, after a check
// that they obey the contract. Errors are compared by gRPC code and exact text.
//
// Watches stay open on both sides all the while (watch.go). How events are
// grouped into responses depends on timing in etcd itself, so each watcher's
// events are compared as one sequence, while the grouping is checked against
// rules: a revision is never split unless fragments were asked for, never
// repeated, and the header is never behind the events.
//
// What is allowed to differ has a name: withoutPrevAtCompacted and compactionHash
// (allowed.go), and the two things that generators leave out because etcd breaks on
// them or they depend on the shape of a tree (deletes in generate_txn.go, rangeEnd
// in generate.go).
//
// A difference is reported with the request, both answers and the one line that
// replays it; shrink.go makes the sequence shorter first.
//
// Read op.go, symbol.go, generate.go and its companions, side.go, watch.go, compare.go, run.go.
package differential
