// Package client is the Go client for control planes. It speaks etcd's API and
// works with kvd and with etcd.
//
//	c, err := client.New(client.Config{Endpoints: []string{"10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"}})
//	...
//	defer c.Close()
//	rev, err := c.Put(ctx, "/jobs/1", []byte("queued"))
//
// # The model
//
// The store is an ordered map with a history. Every transaction that changes it
// makes a new Revision; reads and watches can name one. A Range says which keys
// a call is about: Key, Prefix, Span, From or All. Keys are strings of any
// bytes, values are bytes.
//
// What a control plane does is read a range, and then hear of every change:
//
//	var rev client.Revision
//	for kv, err := range c.Scan(ctx, jobs, client.ReadRevision(&rev)) { ... }
//	for ev, err := range c.Watch(ctx, jobs, client.After(rev)) { ... }
//
// Cache does both and keeps the result in memory, indexed.
//
// # What is retried
//
// Reads are sent again, to another member if need be, until the context ends.
// Writes are sent again only when no server can have acted on the first: the
// request never left this process, or a member refused it before it proposed
// anything. In every other case the caller gets an error that is
// ErrUnknownOutcome, and must read to learn what happened. An error that is not
// ErrUnknownOutcome promises that the write had no effect.
//
// Watches, sessions, locks and caches go on by themselves when members die,
// leaders change and connections break. They end when the context or the client
// does, or when going on would be a lie: history was compacted
// (CompactedError), a lease was lost (ErrLeaseLost), a right is missing.
//
// # Pipelining
//
// Small calls share a stream to a kvd once many are made at once (pipe.go). What a
// call means, how it fails and when does not depend on it; Config.NoPipeline turns
// it off. A stream that breaks leaves all writes on it with an unknown outcome.
//
// # Concurrency
//
// A Client and what it hands out are safe for concurrent use. It runs one
// goroutine that finds the leader, two for each stream of watches (2,500 to a
// stream), two for each stream of calls, two while leases are kept alive, and
// those of one gRPC connection to each endpoint. Close ends and joins all of them.
// Watch, Scan and Cache.Run work in the goroutine of their caller.
//
// # Order to read the files in
//
// keys.go, kv.go, txn.go, swap.go, stm.go, scan.go: requests and answers.
// call.go and conn.go: one request on its way; pool.go: where it goes, and who leads;
// pipe.go: the stream that it may share; endpoint.go, token.go, errors.go.
// stream.go: what is opened again when it breaks; watch.go and watch_stream.go; lease.go, keeper.go, session.go,
// lock.go. cache.go stands on all of them. users.go and admin.go manage users,
// members and single members.
package client
