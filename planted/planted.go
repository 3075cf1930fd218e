// Package planted holds known bugs, to prove that the tests which look for such
// bugs can see. They are constants, all false, unless the program is built with
// the tag planted; then the variable KEELSON_PLANTED names the one that is on.
package planted

// Bug is one of them.
type Bug struct {
	Name, About string
	// Test is where it must be seen: "./package TestName", a Go test that must fail
	// with it; or "", the simulator.
	Test string
	// Slow ones take the simulator more seeds than every change can afford.
	Slow bool
}

// Bugs lists all.
var Bugs = []Bug{
	{Name: "reply-before-sync", About: "answers leave before the sync that they rest on"},
	{Name: "vote-unsynced", About: "a term and a vote are told before they are durable"},
	{Name: "skip-some-syncs", About: "every 20th sync of the log is left out"},
	{Name: "forget-vote", About: "a restart forgets the term and the vote"},
	{Name: "truncate-too-far", About: "a torn tail takes the last whole batch with it", Slow: true},
	{Name: "apply-before-commit", About: "a follower applies what its leader has only sent"},
	{Name: "commit-by-learner", About: "what a learner holds counts for a majority", Test: "./raft TestLearnerDoesNotCommit", Slow: true},
	{Name: "two-confs-at-once", About: "a leader begins a change of the membership before the one before is made", Test: "./raft TestOneChangeAtATime"},
	{Name: "no-check-quorum", About: "a leader goes on without a quorum"},
	{Name: "skip-syncdir", About: "a new segment's name is not made durable"},
	{Name: "damage-is-torn", About: "damage of the log passes for a torn write"},
	{Name: "ignore-checksum", About: "records of the log are taken without their checksum", Slow: true},
	{Name: "read-without-index", About: "a linearizable read asks nobody"},
	{Name: "read-before-applied", About: "a read is served before its index is applied"},
	{Name: "leader-lease-reads", About: "a leader reads by its clock, though it may have been paused", Slow: true},
	{Name: "read-by-two", About: "a leader of five answers a read on the word of one follower", Test: "./raft TestTwoOfFive"},
	{Name: "stale-goes-back", About: "a serializable read shows less than one before it on the same member"},
	{Name: "old-leader-expires", About: "an expiry counts in a later term too", Slow: true},
	{Name: "renew-unconfirmed", About: "a leader renews leases without asking whether it still leads", Slow: true},
	{Name: "renew-by-anybody", About: "a member without a leader renews leases by itself", Slow: true},
	{Name: "ttl-by-wall-clock", About: "leases run by the wall clock"},
	{Name: "lease-lost", About: "a restart or an installed snapshot loses a lease"},
	{Name: "revision-reused", About: "a restart begins one revision too low"},
	{Name: "empty-txn-counts", About: "a write that changes nothing takes a revision"},
	{Name: "delete-absent-counts", About: "the delete of an absent key takes a revision"},
	{Name: "split-txn", About: "the writes of a transaction get two revisions"},
	{Name: "compare-outside", About: "compares see the state before the transactions that were committed with theirs"},
	{Name: "limit-plus-one", About: "a range returns one key more than its limit"},
	{Name: "compact-too-much", About: "compaction gives up a record that reads still need"},
	{Name: "version-kept", About: "the version goes on after a delete"},
	{Name: "defrag-loses-batch", About: "the rewrite of the file loses its last batch", Test: "./mvcc/engine TestRewriteKeepsAll"},
	{Name: "drop-when-behind", About: "a slow watcher loses events"},
	{Name: "event-twice", About: "a watcher that caught up gets an event again"},
	{Name: "split-revision", About: "a revision comes in two answers of a watch"},
	{Name: "progress-early", About: "a progress notice comes before the events it promises", Slow: true},
	{Name: "future-start-now", About: "a watch from a future revision begins at once"},
	{Name: "compacted-silence", About: "a watcher that compaction overtook is not told"},
	{Name: "watcher-lost", About: "an installed snapshot leaves a gap for watchers"},
	{Name: "prev-older", About: "the previous value is the one before the previous"},
	{Name: "retry-unknown", About: "a batch that came twice is taken twice"},
	{Name: "alarm-not-replicated", About: "only the member that was asked raises the alarm"},
	{Name: "client-retries", About: "the client sends a write again whose outcome is unknown", Test: "./client TestNoWriteTwice", Slow: true},
	{Name: "restore-keeps-members", About: "a restored cluster knows the members that the snapshot was of", Test: "./cmd/kvctl TestRestoreThree", Slow: true},
}
