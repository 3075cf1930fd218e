// Package campaign kills the leader of three real members again and again, under
// load, and judges what was recorded.
//
// The load is package load's, through etcd's clientv3, our client library, plain
// gRPC, or a third each. All of it goes into a history file, and when the members
// have stopped all of package oracle looks at that: what was acknowledged is at
// its revision on every member, in an order that explains every answer; watches
// told exactly that; leases, locks, counters and lists kept their promises.
//
// Time to first ack is measured from outside: from SIGKILL until a probe sent
// after it to one of the two others is acknowledged.
package campaign
