// Package planted holds known bugs, to prove that the tests which look for such
// bugs can see. They are constants, all false, unless the program is built with
// the tag planted; then the variable KEELSON_PLANTED names the one that is on.
package planted

// Bug is one of them.
type Bug struct{ Name, About string }

// Bugs lists all.
var Bugs = []Bug{
	{"reply-before-sync", "answers leave before the sync that they rest on"},
	{"vote-unsynced", "a term and a vote are told before they are durable"},
	{"skip-some-syncs", "every 20th sync of the log is left out"},
	{"forget-vote", "a restart forgets the term and the vote"},
	{"skip-syncdir", "a new segment's name is not made durable"},
	{"damage-is-torn", "damage of the log passes for a torn write"},
	{"ignore-checksum", "records of the log are taken without their checksum"},
	{"read-without-index", "a linearizable read asks nobody"},
	{"read-before-applied", "a read is served before its index is applied"},
	{"leader-lease-reads", "a leader reads by its clock, though it may have been paused"},
	{"old-leader-expires", "an expiry counts in a later term too"},
	{"renew-unconfirmed", "a leader renews leases without asking whether it still leads"},
	{"lease-lost", "a restart or an installed snapshot loses a lease"},
	{"revision-reused", "a restart begins one revision too low"},
	{"empty-txn-counts", "a write that changes nothing takes a revision"},
	{"split-txn", "the writes of a transaction get two revisions"},
	{"limit-plus-one", "a range returns one key more than its limit"},
	{"compact-too-much", "compaction gives up a record that reads still need"},
	{"version-kept", "the version goes on after a delete"},
	{"drop-when-behind", "a slow watcher loses events"},
	{"event-twice", "a watcher that caught up gets an event again"},
	{"split-revision", "a revision comes in two answers of a watch"},
	{"progress-early", "a progress notice comes before the events it promises"},
	{"future-start-now", "a watch from a future revision begins at once"},
	{"compacted-silence", "a watcher that compaction overtook is not told"},
	{"watcher-lost", "an installed snapshot leaves a gap for watchers"},
	{"prev-older", "the previous value is the one before the previous"},
	{"retry-unknown", "a batch that came twice is taken twice"},
}
