// Package server is a member: it serves etcd's KV, Watch, Lease, Cluster and
// Maintenance services, proposes what clients ask, applies what a majority has
// agreed on, and keeps the time of leases.
//
// # Life of a Put
//
// One way, one file after the other:
//
//  1. kv.go: gRPC calls the handler in the RPC's goroutine. The codec
//     (codec.go, codec_request.go) has cut the request into fields that point
//     into its bytes; kv_check.go checks them. Before that, overload.go may let
//     the request wait for those of other clients.
//  2. admit.go: may this command be proposed at all?
//  3. propose.go: the request's own bytes become a command of package raft,
//     which bundles what waits into one entry.
//  4. to 7. package raft: the entry is written and synced here and elsewhere.
//     Once a majority has it, it is committed: this is the commit point.
//  8. apply.go: the apply goroutine evaluates the command (txn.go) against the
//     store in a write transaction of package mvcc. Revision r exists. If a
//     caller waits on this member, its answer is encoded here (codec_reply.go),
//     with the transaction's own revision.
//  9. apply.go: Seal and Publish. Watchers have r queued, then readers see it.
//  10. raft wakes the caller; the handler returns the encoded answer, which the
//     codec passes through.
//
// The busiest calls come together: package direct takes Range, Put, DeleteRange and Txn out of
// a connection below gRPC (direct.go), and many callers of one client may share a stream
// (pipeline.go, pipeline_answer.go). Steps 1 and 2 are then done by who receives, step 3
// once for all writes that came together, and step 10 by who sends (intake.go). A call that
// meets an obstacle goes the way above, in a worker.
//
// # Life of a Range
//
// kv.go waits for a read barrier, takes a read transaction and lets range.go
// visit the keys. Stored records are KeyValue messages already: range_answer.go
// copies them into pooled chunks and bounds what all answers together keep in
// memory. RangeStream (range_stream.go) does the same a chunk at a time.
//
// # Leases
//
// lease.go serves the RPCs; expiry.go and expiry_ask.go keep the leader's
// clocks. Which leases exist is state in mvcc, changed by commands alone.
//
// # Locks, elections, JSON
//
// lock.go and election.go are recipes (recipe.go) over the services above;
// schema.go describes their messages. gateway.go turns JSON into RPCs, which
// gateway_conn.go brings to the gRPC server with the caller's own identity.
//
// # A member's frame
//
// config.go says what a member needs to know, bootstrap.go whose data directory
// it has, server_open.go puts the parts together, server_run.go runs and stops
// them. listen.go binds the sockets, listen_gate.go lets connections in, tls.go
// says with which certificates. cluster.go, maintenance.go and http.go tell
// about it.
//
// # What can be seen
//
// metrics.go and its siblings count; metrics_state.go reads what need not be
// counted. server.go's rpcEnded is told of each RPC: hot.go looks for hot spots,
// slow.go and audit.go write, describe.go says what a request is about.
//
// # Upkeep
//
// maintenance_upkeep.go lists what a member does by itself: alarm.go and
// quota.go bound the space, compactor.go and the store's Defragment give it
// back, corrupt.go compares members with each other, downgrade.go keeps the
// cluster's version.
//
// # Two classes of failure
//
// A request is refused with an error of package api; rpcError (errors.go) is
// the only place where errors become gRPC statuses. Everything else stops the
// member: a store that cannot write, a log that cannot sync. A restart recovers.
// After damage of what is stored it first takes the other members' state
// (rebuild.go).
package server
