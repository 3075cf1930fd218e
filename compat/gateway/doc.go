// Package gateway plays the same HTTP requests against the JSON gateways of
// etcd and of the store under test, and compares the answers; and it lets
// etcd's own client recipes and the Lock and Election services contend for the
// same locks.
//
// What differs from run to run (ids of clusters and members, sizes, Raft's
// counters) is masked; LockResponse.token, which etcd does not have, is cut off.
package gateway
