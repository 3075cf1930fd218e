//go:build !planted

package planted

// On is the name of the bug that is on: none.
const On = ""

// The bugs; Bugs says what each does.
const (
	ReplyBeforeSync     = false
	VoteUnsynced        = false
	SkipSomeSyncs       = false
	ForgetVote          = false
	TruncateTooFar      = false
	ApplyEarly          = false
	CommitByLearner     = false
	TwoConfs            = false
	NoCheckQuorum       = false
	SkipSyncDir         = false
	DamageIsTorn        = false
	IgnoreChecksum      = false
	ReadWithoutIndex    = false
	ReadBeforeApplied   = false
	LeaderLeaseReads    = false
	ReadByTwo           = false
	StaleGoesBack       = false
	OldLeaderExpires    = false
	RenewUnconfirmed    = false
	RenewByAnybody      = false
	WallClockTTL        = false
	LeaseLost           = false
	RevisionReused      = false
	EmptyTxnCounts      = false
	DeleteAbsentCounts  = false
	SplitTxn            = false
	CompareOutside      = false
	LimitPlusOne        = false
	CompactTooMuch      = false
	VersionKept         = false
	DefragLosesBatch    = false
	DropWhenBehind      = false
	EventTwice          = false
	SplitRevision       = false
	ProgressEarly       = false
	FutureStartNow      = false
	CompactedSilence    = false
	WatcherLost         = false
	PrevOlder           = false
	RetryUnknown        = false
	AlarmNotReplicated  = false
	ClientRetries       = false
	RestoreKeepsMembers = false
)
