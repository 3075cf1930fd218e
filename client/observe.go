package client

import "context"

// Observer hears what a client does. Its methods are called on the paths of
// calls, by many goroutines at once, and should return quickly.
type Observer interface {
	// Call hears of a call when it begins; op is the gRPC method, as in
	// "/etcdserverpb.KV/Put". The context that it returns is the call's, so it
	// may carry a span. The function that it returns hears how the call ended.
	Call(ctx context.Context, op string) (context.Context, func(Outcome))
	// Notice hears what happened beside calls.
	Notice(Notice)
}

// Outcome is how a call ended.
type Outcome struct {
	Endpoint string // of the last attempt; empty when there was none
	Attempts int
	Err      error // nil, or what the caller gets
}

// Notice is something that happened to a client and that its calls hide.
type Notice struct {
	Kind     NoticeKind
	Endpoint string // where it happened, if it has a place
	Err      error  // its cause, if it has one
}

// NoticeKind says what a Notice is about.
type NoticeKind string

// Kinds of notices.
const (
	NoticeFailover     NoticeKind = "failover"      // calls go to another endpoint now
	NoticeLeader       NoticeKind = "leader"        // writes go to this endpoint, the leader's
	NoticeToken        NoticeKind = "token"         // a token was refused and is fetched anew
	NoticeWatchBroken  NoticeKind = "watch-broken"  // a stream of watches broke; it is opened anew
	NoticeWatchLagging NoticeKind = "watch-lagging" // a watch's reader fell behind; it will catch up from history
	NoticeLeaseLost    NoticeKind = "lease-lost"    // a lease that was kept alive is gone
	NoticeCacheResync  NoticeKind = "cache-resync"  // a cache lists anew, because history was compacted
)

// notice tells the observer, if there is one.
func (c *core) notice(kind NoticeKind, endpoint string, err error) {
	if o := c.cfg.Observer; o != nil {
		o.Notice(Notice{Kind: kind, Endpoint: endpoint, Err: err})
	}
}

// observe tells the observer that a call begins.
func (c *core) observe(ctx context.Context, op string) (context.Context, func(Outcome)) {
	if o := c.cfg.Observer; o != nil {
		return o.Call(ctx, op)
	}
	return ctx, func(Outcome) {}
}
