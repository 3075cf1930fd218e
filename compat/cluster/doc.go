// Package cluster runs real members of etcd or kvd as child processes, with the
// same flags for both, so that every suite of this module can be pointed at
// either: what differs is the binary and nothing else.
//
// A member listens on loopback ports below the range the kernel gives to
// outgoing connections, so that a restarted member finds its ports free. A
// member is ended by its process id only. Its log goes to a file in its
// directory, which a failed test names.
package cluster
