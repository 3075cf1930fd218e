// Package client holds keelson's Go client against real clusters of three, of
// kvd and of etcd: the client must not care which of them it talks to.
package client
