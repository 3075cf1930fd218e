package mvcc

import "sync"

// compactionHashes remembers the hashes that compactions made on their way, in
// memory only: etcd's compaction check compares them between members, because
// they cover everything that the compaction is about to delete.
type compactionHashes struct {
	mu struct {
		sync.Mutex
		list []KVHash // by revision
	}
}

// startHash begins the hash of the compaction that is about to start. It covers
// the history from the compaction before, so that one must have been finished.
// The caller holds flushing.
func (s *Store) startHash(c *compaction) {
	if !s.cfg.HashCompactions {
		return
	}
	st, err := s.indexed()
	if err != nil {
		return // closed: the compaction will not go on either
	}
	if st.view.rev < c.target {
		st.view.release()
		return
	}
	c.hash = newHashScan(st, s.reclaimed.Load().upTo, c.target)
}

// hashSome hashes a portion of what the compaction covers and reports whether
// there is more. A record that cannot be read ends the hash, not the compaction:
// whoever reads the record finds out.
func (s *Store) hashSome(c *compaction) (more bool) {
	if c.hash == nil {
		return false
	}
	done, err := c.hash.step(hashPortion)
	if !done && err == nil {
		return true
	}
	if err == nil {
		s.hashes.add(c.hash.result())
	} else {
		s.log.Error("cannot hash the compacted history", "revision", c.target, "error", err)
	}
	s.dropHash(c)
	return false
}

// dropHash gives the hash's view back, if there is one.
func (s *Store) dropHash(c *compaction) {
	if c.hash != nil {
		c.hash.st.view.release()
		c.hash = nil
	}
}
