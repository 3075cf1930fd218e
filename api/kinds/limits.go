package kinds

// Bounds of what Decode accepts.
const (
	// maxDepth of messages and JSON inside each other. The deepest kind that is
	// not recursive has about 15; schemas of custom resources are recursive.
	maxDepth = 200
	// maxValues in one object. An object of 1.5 MiB, etcd's limit, has a few
	// hundred thousand at the most; an empty message of two bytes can stand for a
	// dozen values that are written although they are absent.
	maxValues = 1 << 20
	// maxUnknown fields are reported one by one; the rest is counted.
	maxUnknown = 64
)
