// Package client is the Go client for control planes. It speaks etcd's API and
// works with kvd and with etcd.
//
//	c, err := client.New(client.Config{Endpoints: []string{"10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"}})
//	...
//	defer c.Close()
//	rev, err := c.Put(ctx, "/jobs/1", []byte("queued"))
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
// # Order to read the files in
//
// keys.go, kv.go; call.go (one request), pool.go (where it goes), endpoint.go,
// errors.go, token.go.
package client
