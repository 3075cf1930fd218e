package engine

import "errors"

// Bolt cannot be on this platform: bbolt maps its file into memory. Whoever runs a
// member here brings an engine of his own.
type Bolt struct{ Engine }

// OpenBolt always fails.
func OpenBolt(string, BoltOptions) (*Bolt, error) { return nil, errors.ErrUnsupported }
