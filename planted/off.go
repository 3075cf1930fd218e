//go:build !planted

package planted

// On is the name of the bug that is on: none.
const On = ""

// The bugs; Bugs says what each does.
const (
	ReplyBeforeSync   = false
	VoteUnsynced      = false
	SkipSomeSyncs     = false
	ForgetVote        = false
	SkipSyncDir       = false
	DamageIsTorn      = false
	IgnoreChecksum    = false
	ReadWithoutIndex  = false
	ReadBeforeApplied = false
	LeaderLeaseReads  = false
	OldLeaderExpires  = false
	RenewUnconfirmed  = false
	LeaseLost         = false
	RevisionReused    = false
	EmptyTxnCounts    = false
	SplitTxn          = false
	LimitPlusOne      = false
	CompactTooMuch    = false
	VersionKept       = false
	DropWhenBehind    = false
	EventTwice        = false
	SplitRevision     = false
	ProgressEarly     = false
	FutureStartNow    = false
	CompactedSilence  = false
	WatcherLost       = false
	PrevOlder         = false
	RetryUnknown      = false
)
