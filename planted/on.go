//go:build planted

package planted

import "os"

// On is the name of the bug that is on.
var On = os.Getenv("KEELSON_PLANTED")

// The bugs; Bugs says what each does.
var (
	ReplyBeforeSync     = On == "reply-before-sync"
	VoteUnsynced        = On == "vote-unsynced"
	SkipSomeSyncs       = On == "skip-some-syncs"
	ForgetVote          = On == "forget-vote"
	TruncateTooFar      = On == "truncate-too-far"
	ApplyEarly          = On == "apply-before-commit"
	CommitByLearner     = On == "commit-by-learner"
	TwoConfs            = On == "two-confs-at-once"
	NoCheckQuorum       = On == "no-check-quorum"
	SkipSyncDir         = On == "skip-syncdir"
	DamageIsTorn        = On == "damage-is-torn"
	IgnoreChecksum      = On == "ignore-checksum"
	ReadWithoutIndex    = On == "read-without-index"
	ReadBeforeApplied   = On == "read-before-applied"
	LeaderLeaseReads    = On == "leader-lease-reads"
	ReadByTwo           = On == "read-by-two"
	StaleGoesBack       = On == "stale-goes-back"
	OldLeaderExpires    = On == "old-leader-expires"
	RenewUnconfirmed    = On == "renew-unconfirmed"
	RenewByAnybody      = On == "renew-by-anybody"
	WallClockTTL        = On == "ttl-by-wall-clock"
	LeaseLost           = On == "lease-lost"
	RevisionReused      = On == "revision-reused"
	EmptyTxnCounts      = On == "empty-txn-counts"
	DeleteAbsentCounts  = On == "delete-absent-counts"
	SplitTxn            = On == "split-txn"
	CompareOutside      = On == "compare-outside"
	LimitPlusOne        = On == "limit-plus-one"
	CompactTooMuch      = On == "compact-too-much"
	VersionKept         = On == "version-kept"
	DefragLosesBatch    = On == "defrag-loses-batch"
	DropWhenBehind      = On == "drop-when-behind"
	EventTwice          = On == "event-twice"
	SplitRevision       = On == "split-revision"
	ProgressEarly       = On == "progress-early"
	FutureStartNow      = On == "future-start-now"
	CompactedSilence    = On == "compacted-silence"
	WatcherLost         = On == "watcher-lost"
	PrevOlder           = On == "prev-older"
	RetryUnknown        = On == "retry-unknown"
	AlarmNotReplicated  = On == "alarm-not-replicated"
	ClientRetries       = On == "client-retries"
	RestoreKeepsMembers = On == "restore-keeps-members"
)
