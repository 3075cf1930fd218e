package resource

import "time"

// Limits of the layer, each with its reason.
const (
	// maxBodyBytes is a kube-apiserver's. What is stored is bounded by the store.
	maxBodyBytes = 3 << 20
	// maxYAMLBytes bounds what is answered in YAML, which people ask for and programs do not.
	maxYAMLBytes = 8 << 20
	// maxReads and maxWrites bound requests that are served at a time, watches
	// aside. They are what kube-apiserver calls max-requests-inflight and
	// max-mutating-requests-inflight, with its defaults. heartbeats have places of
	// their own: a node or a leader that cannot renew its lease is taken for dead.
	maxReads      = 400
	maxWrites     = 200
	maxHeartbeats = 100
	// maxWatches bounds watches: each costs a goroutine and a connection or stream.
	maxWatches = 20000
	// ringEvents is how many changes a collection keeps for its watchers. Watchers
	// that are further behind read the store's history.
	ringEvents = 4096
	// maxRetries bounds how often a write begins again because it lost a race.
	// Each round some writer wins, so only a storm of writers can use it up.
	maxRetries = 100
	// maxNameAttempts is how often a name is generated anew because it is taken.
	maxNameAttempts = 8
	// requestTimeout bounds a request that is no watch, as in a kube-apiserver.
	// answerTimeout is when its answer must have been taken.
	requestTimeout = 60 * time.Second
	answerTimeout  = requestTimeout + 10*time.Second
	// StallTimeout ends a watch whose client takes nothing of it for that long, and a
	// connection whose other end takes nothing at all.
	StallTimeout = time.Minute
	// freshTimeout is how long a read waits for a resource version that this
	// member does not have yet.
	freshTimeout = 3 * time.Second
	// pulseEvery is how often a member looks whether it still reaches the cluster, and
	// pulseTimeout how long that may take before its watches end: longer than any
	// election, so that only a member that is cut off sends its watchers away.
	pulseEvery   = 5 * time.Second
	pulseTimeout = 20 * time.Second
	// bookmarkEvery is how often a watcher that wants bookmarks hears of the
	// revision when nothing else happens.
	bookmarkEvery = time.Minute
	// lastBookmark is how long before its end a watch gets its last bookmark.
	lastBookmark = 2 * time.Second
	// minWatchTimeout is half of the longest time of a watch that did not say how
	// long it wants to last; clients then come back at different times.
	minWatchTimeout = 30 * time.Minute
	// flushBytes is how much of a list is gathered before it is sent.
	flushBytes = 128 << 10
	// gzipBytes is the size from which answers are compressed for who asks.
	gzipBytes = 128 << 10
	// eventTTL is how long Events live, as kube-apiserver's --event-ttl; a lease is
	// shared by the events of leaseShare.
	eventTTL   = time.Hour
	leaseShare = time.Minute
)
