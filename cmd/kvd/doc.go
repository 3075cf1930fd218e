// Kvd is the Keelson server: one member of a replicated key-value store that
// serves etcd's v3 API.
//
// Without flags it is a durable cluster of one: clients on localhost:2379,
// peers on localhost:2380, data in the directory default.kvd.
//
// # Configuration
//
// Flags are etcd's, with one dash or two. What the command line does not set is
// taken from the environment (--listen-client-urls is ETCD_LISTEN_CLIENT_URLS),
// then from the default. With --config-file (or ETCD_CONFIG_FILE) the file alone
// counts: its keys are the flags' names. The table in options.go is the one
// source of names, defaults and texts; --help and docs/operators/kvd.md are
// printed from it.
//
// # Exit codes
//
// Before it exits with anything but 0, kvd writes one line to standard error
// that says why.
//
//	0  stopped when asked to
//	1  the command line, environment or configuration file is wrong
//	2  another process has the data directory (also what a Go panic gives)
//	3  the data directory is not this member's: another cluster's, another
//	   member's, or not kvd's at all
//	4  no space left on the device
//	5  a write or sync of the storage failed
//	6  stored data is damaged and no other member can repair it, or is not the
//	   data with which the cluster knows this member; the damaged log or
//	   database of one of several members is repaired by the others instead
//	7  an address cannot be listened on
//	8  any other failure
//	9  the member was removed from the cluster; starting it again is no use
//
// # Signals
//
// The first SIGTERM or SIGINT hands leadership over and stops. A second one
// quits at once, with 128 + its number; nothing acknowledged is lost by that.
//
// # systemd
//
// A unit of Type=notify is told READY=1 once clients are served, as by etcd.
//
// # Files, in reading order
//
// main.go, options.go (the table), settings.go (file, environment, command
// line), help.go, exit.go, systemd.go.
package main
