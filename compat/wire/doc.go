// Package wire knows every RPC that etcd 3.7 serves to clients, from the
// descriptors of its protocol, and calls any of them by name. Suites that must
// cover all of them enumerate Methods, so an RPC of a later protocol fails there
// until somebody has thought of it.
package wire
