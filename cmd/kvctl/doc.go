// Kvctl operates a Keelson or etcd cluster from the command line.
//
// Its commands, flags and plain output are etcdctl's where etcdctl has the same
// job; docs/kvctl.md has the table. `kvctl COMMAND --help` shows each command
// with an example.
//
// # Configuration
//
// A global flag is taken from the command line, else from the environment as
// KVCTL_NAME, else as ETCDCTL_NAME, else from the context in use (see `kvctl
// context`), else from its default. --dial-timeout is KVCTL_DIAL_TIMEOUT.
//
// # Exit codes
//
// An error is one line on standard error that says what was tried, where, and
// what came of it, and one that says what to do next.
//
//	0    done
//	1    the cluster refused the request
//	2    the command line, environment or contexts file is wrong
//	3    no endpoint could be reached
//	4    no answer in time: a change may or may not have been made
//	5    not permitted: login, permission, certificate
//	6    a check failed: an unhealthy endpoint, a damaged snapshot, data that differ
//	7    a local file could not be read or written
//	130  interrupted
//
// `lock` with a command exits with that command's code.
//
// # Files, in reading order
//
// main.go, command.go (how a command is made and run), flags.go, conn.go (the
// only file that makes clients), exit.go, print.go; then one file for each group of
// commands.
package main
