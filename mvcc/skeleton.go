package mvcc

import (
	"context"
	"io"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

type Store struct{ hub *hub }

func Open(cfg Config) (*Store, error)                                      { panic("skeleton") }
func (s *Store) Run(ctx context.Context) error                             { panic("skeleton") }
func (s *Store) Applied() (api.Index, api.Term)                            { panic("skeleton") }
func (s *Store) Durable() api.Index                                        { panic("skeleton") }
func (s *Store) Begin() *WriteTxn                                          { panic("skeleton") }
func (s *Store) Seal(index api.Index, term api.Term)                       { panic("skeleton") }
func (s *Store) Publish()                                                  { panic("skeleton") }
func (s *Store) Revision() api.Revision                                    { panic("skeleton") }
func (s *Store) CompactRevision() api.Revision                             { panic("skeleton") }
func (s *Store) Read(at api.Revision) (*ReadTxn, error)                    { panic("skeleton") }
func (s *Store) Leases() []api.LeaseID                                     { panic("skeleton") }
func (s *Store) Lease(id api.LeaseID) (LeaseInfo, bool)                    { panic("skeleton") }
func (s *Store) Snapshot() (*Snapshot, error)                              { panic("skeleton") }
func (s *Store) Raw(b engine.Bucket, fn func(k, v []byte) bool)            { panic("skeleton") }
func (s *Store) Check() []error                                            { panic("skeleton") }
func (s *Store) Stats() Stats                                              { panic("skeleton") }
func (s *Store) History(from, to api.Revision, fn func(*Event) bool) error { panic("skeleton") }
func (s *Store) PrevRecord(rev api.Revision, sub int64) (Record, error)    { panic("skeleton") }

type WriteTxn struct{}

func (t *WriteTxn) Revision() api.Revision        { panic("skeleton") }
func (t *WriteTxn) CompactRevision() api.Revision { panic("skeleton") }
func (t *WriteTxn) Get(key []byte) (Item, bool)   { panic("skeleton") }

// Readable returns ErrFutureRevision, ErrCompacted, or nil when Scan and Count at this revision are exact.
func (t *WriteTxn) Readable(at api.Revision) error                                 { panic("skeleton") }
func (t *WriteTxn) Scan(key, end []byte, at api.Revision, fn func(Item) bool)      { panic("skeleton") }
func (t *WriteTxn) Count(key, end []byte, at api.Revision) int                     { panic("skeleton") }
func (t *WriteTxn) Record(it Item) (Record, error)                                 { panic("skeleton") }
func (t *WriteTxn) Put(key, value []byte, lease api.LeaseID) (prev Item, had bool) { panic("skeleton") }
func (t *WriteTxn) DeleteRange(key, end []byte, fn func(prev Item)) int            { panic("skeleton") }
func (t *WriteTxn) LeaseGrant(id api.LeaseID, ttl int64) error                     { panic("skeleton") }
func (t *WriteTxn) LeaseRevoke(id api.LeaseID) error                               { panic("skeleton") }
func (t *WriteTxn) LeaseCheckpoint(id api.LeaseID, remaining int64)                { panic("skeleton") }
func (t *WriteTxn) LeaseExists(id api.LeaseID) bool                                { panic("skeleton") }
func (t *WriteTxn) Compact(at api.Revision) error                                  { panic("skeleton") }
func (t *WriteTxn) SetRaw(b engine.Bucket, key, value []byte)                      { panic("skeleton") }
func (t *WriteTxn) DeleteRaw(b engine.Bucket, key []byte)                          { panic("skeleton") }
func (t *WriteTxn) End() Result                                                    { panic("skeleton") }

type ReadTxn struct{}

func (t *ReadTxn) Revision() api.Revision                   { panic("skeleton") }
func (t *ReadTxn) At() api.Revision                         { panic("skeleton") }
func (t *ReadTxn) Get(key []byte) (Item, bool)              { panic("skeleton") }
func (t *ReadTxn) Scan(key, end []byte, fn func(Item) bool) { panic("skeleton") }
func (t *ReadTxn) Count(key, end []byte) int                { panic("skeleton") }
func (t *ReadTxn) Record(it Item) (Record, error)           { panic("skeleton") }
func (t *ReadTxn) Pin()                                     { panic("skeleton") }
func (t *ReadTxn) Release()                                 { panic("skeleton") }

type Snapshot struct {
	Index    api.Index
	Term     api.Term
	Revision api.Revision
}

func (s *Snapshot) Size() int64                        { panic("skeleton") }
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) { panic("skeleton") }
func (s *Snapshot) Release()                           { panic("skeleton") }
