// Package maintenance holds kvd's Maintenance service against etcd's: the same
// calls to both, and etcd's own tools on kvd's files.
package maintenance
