// Package api is the contract between the layers: the types of the numbers that
// must not be mixed up, the one table of errors with etcd's texts, and every
// limit with its reason. It has no behaviour and imports nothing of ours.
//
// The messages on the wire are etcd's own, from go.etcd.io/etcd/api/v3.
package api

import "fmt"

// Revision counts the transactions that changed the store. The empty store is
// at revision 1; each changing transaction adds one. etcd calls it "main".
type Revision int64

// Index is a position in the replicated log. The first entry has index 1.
type Index uint64

// Term numbers leaderships. At most one member leads in a term.
type Term uint64

// MemberID names a member for ever. It is never 0 and is never used again
// after the member was removed.
type MemberID uint64

// String prints the id as etcd does: lower-case hexadecimal without padding.
func (id MemberID) String() string { return fmt.Sprintf("%x", uint64(id)) }

// ClusterID names a cluster. Members of different clusters refuse each other.
type ClusterID uint64

// String prints the id as etcd does: lower-case hexadecimal without padding.
func (id ClusterID) String() string { return fmt.Sprintf("%x", uint64(id)) }

// LeaseID names a lease; 0 means "no lease".
type LeaseID int64
