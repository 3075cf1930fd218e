// Package membership compares how two stores change their membership: the same
// commands of etcdctl, and requests that etcdctl would not send, go to three
// members of each, which grow, shrink, lose a process and are asked for what
// would cost them their quorum. What is printed must be equal once ids and
// addresses have been replaced by names.
//
// Read script.go for the commands, world.go for how they run.
package membership
