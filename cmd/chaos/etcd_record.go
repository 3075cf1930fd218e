package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// etcdBug is one of the bugs of consistency in the track record of etcd's own
// robustness tests, since 2022, and how it would show here.
type etcdBug struct {
	issue   int // of etcd-io/etcd
	what    string
	test    string // "./package TestName"
	planted string // bug of package planted that is like it; "": none is
}

var etcdBugs = []etcdBug{
	{13766, "a crash under load leaves members with different revisions", "./mvcc TestFailEveryCommit", "revision-reused"},
	{14370, "a cluster of one loses a write that it acknowledged", "./chaos/sim TestFailCalls", "reply-before-sync"},
	{14571, "members decide differently while auth is switched on", "./server TestEtcd14571_SameDecisionOnEveryMember", ""},
	{14685, "a crash inside defragmentation leaves a wrong revision", "./mvcc/engine TestRewriteThatEnds", "defrag-loses-batch"},
	{15220, "progress is told before the events up to it", "./mvcc TestWatchTranscripts", "progress-early"},
	{15271, "a watch goes back in time after a partition", "./server TestSnapshotReplacesTheStore", "watcher-lost"},
	{17247, "an event comes twice after a transaction was cached", "./mvcc TestWatchTranscripts", "event-twice"},
	{17529, "a stream that starves loses events", "./mvcc TestWatchStorm", "drop-when-behind"},
	{17780, "a crash inside compaction takes the revision back", "./mvcc TestRevisionAfterLostTombstone", "revision-reused"},
	{18055, "two states of the leader in a row stop the member", "./chaos/sim TestStatesInARow", ""},
	{18089, "an event is lost when compaction meets a delete", "./mvcc TestWatchTranscripts", "compact-too-much"},
	{18667, "a transaction that reads what is compacted ends differently on members", "./server TestEtcd18667_CompactedReadInATransaction", ""},
	{19179, "a delete at the revision of a compaction is not seen by a watch from there", "./mvcc TestWatchTranscripts", "compacted-silence"},
	{20221, "a watch from a future revision gets events of before it", "./mvcc TestWatchTranscripts", "future-start-now"},
	{20221, "a watch from a future revision is told of progress before it", "./mvcc TestWatchTranscripts", "progress-early"},
	{20271, "a state that was received is used before its pages are on the disk", "./raft/transport TestSnapshotIsDurableWhenHandedOver", ""},
	{20418, "a member that stood still answers reads with what is old", "./raft TestTranscripts", "leader-lease-reads"},
}

// command is what runs the scenario.
func (b etcdBug) command() string {
	pkg, name, _ := strings.Cut(b.test, " ")
	return fmt.Sprintf("go test %s -run '^%s$'", pkg, name)
}

// etcdRecord is the line of the goal table.
func etcdRecord(found []hunt) string {
	planted := 0
	for _, b := range etcdBugs {
		if b.caught(found) {
			planted++
		}
	}
	return fmt.Sprintf("%d of 17, %d planted and caught", len(etcdBugs), planted)
}

func (b etcdBug) caught(found []hunt) bool {
	return slices.ContainsFunc(found, func(h hunt) bool { return h.Name == b.planted && h.Caught })
}

func writeEtcdBugs(w io.Writer) {
	fmt.Fprint(w, "## etcd's track record\n\nThe 17 bugs of consistency that etcd's robustness tests list since 2022, each with the test here that would show it, and the planted bug most like it, if there is one.\n\n"+
		"| etcd | what it was | command | planted |\n|---|---|---|---|\n")
	for _, b := range etcdBugs {
		fmt.Fprintf(w, "| #%d | %s | `%s` | %s |\n", b.issue, b.what, b.command(), b.planted)
	}
	fmt.Fprintln(w)
}
