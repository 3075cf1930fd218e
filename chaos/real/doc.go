// Package real is ring C of the chaos tests: real kvd processes on real bbolt,
// each in a network namespace of its own, on a disk of its own, with faults that
// a kernel makes.
//
// # The world of a run
//
// `chaos real` starts itself once more in new namespaces for processes, mounts
// and the network (sandbox.go). Whatever happens inside ends with that process:
// the kernel kills what it started, unmounts what it mounted and closes its
// networks. Only cgroups outlive it; the process outside removes those, and those
// of runs that were killed.
//
//	harness ── clients ── TUN ──┐
//	m1 (namespace) ────── TUN ──┼── Switch: delay, loss, duplicates, damage, cuts,
//	m2 (namespace) ────── TUN ──┤           bandwidth, resets; by link, by seed
//	m3 (namespace) ────── TUN ──┘
//
// A member's disk is an ext4 file system in an image that lies in memory. The
// shutdown ioctl cuts its power: what was not synced is gone, and the file system
// has to recover when it is mounted again. Stalls and failing calls come from
// strace, which stops the process at a system call; the rest from signals,
// cgroups, limits, and a pen to write over files.
//
// # A run
//
// Run (run.go) draws a configuration from the seed, starts a cluster and the
// clients of package workload, through package client and plainly as etcd's own
// client asks, or in one run of three clients of the Kubernetes API (objects.go), and
// readers that list and then watch, as those of Kubernetes do (informer.go),
// lets a fault happen several times while the load goes on, heals,
// and waits until everybody is served and members are equal. Then it cuts the power
// of all members, starts them once more, stops them, reads their logs and stores,
// and asks package oracle. A run whose load was too thin before its fault, or whose
// fault never happened, fails as meaningless.
//
// A seed fixes the configuration, the requests and the faults, but not the
// timing of processes: the line of a failure repeats the circumstances, and may
// need a few attempts.
//
// Hold (hold.go) is another kind of run: a rate of writes for as long as one likes,
// while the leader is killed every few seconds. A history of that length would not
// fit into memory, so a tape (tape.go) judges it while it goes on.
//
// # What it does not reach
//
// Members share one kernel, so their monotonic clocks do not differ: dates do, in
// members built with the tag chaos, which also keep less of their log than a flag
// allows (cmd/kvd/tune_chaos.go). A failing call is one that strace fails, so that
// the page cache still holds what the disk would have lost, until a power cut.
//
// # Order to read the files in
//
// sandbox.go, netns.go, switch.go, packet.go, disk.go, cgroup.go: the world.
// member.go, cluster.go, membership.go, certs.go: processes. strace.go, damage.go: what spoils their calls and files. load.go, objects.go, watcher.go, informer.go: what clients do.
// run.go, nemesis.go, remains.go, audit.go: a run and its judgement; hold.go, tape.go, held.go: a load that is held;
// tally.go adds runs up. The faults_*.go files
// are the catalogue, by class; catalogue.go lists them.
package real
