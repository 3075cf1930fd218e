package client

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// KV is a key's state at some revision.
type KV struct {
	Key      string
	Value    []byte
	Created  Revision // of the transaction that created the key
	Modified Revision // of the transaction that changed it last
	Version  int64    // changes since its creation, which counts as 1
	Lease    LeaseID  // what the key's life depends on; 0: nothing
}

func (c *Client) kv(m *mvccpb.KeyValue) KV {
	return KV{
		Key: c.local(m.Key), Value: m.Value, Version: m.Version, Lease: LeaseID(m.Lease),
		Created: Revision(m.CreateRevision), Modified: Revision(m.ModRevision),
	}
}

func (c *Client) kvs(list []*mvccpb.KeyValue) []KV {
	if len(list) == 0 {
		return nil
	}
	out := make([]KV, len(list))
	for i, m := range list {
		out[i] = c.kv(m)
	}
	return out
}

// Exists reports whether there is such a key. A KV that does not exist has its
// Key and nothing else.
func (kv KV) Exists() bool { return kv.Version > 0 }

// Page is what List read.
type Page struct {
	KVs []KV
	// Revision is the one that was read. To go on with a second page of the same
	// state, or to watch what comes after it, start from here.
	Revision Revision
	Count    int64 // keys in the whole range, whatever the limit
	More     bool  // a limit cut keys off
}

// Get reads one key. A key that does not exist is ErrNotFound.
func (c *Client) Get(ctx context.Context, key string, opts ...ReadOption) (KV, error) {
	page, err := c.List(ctx, Key(key), opts...)
	if err != nil {
		return KV{}, err
	}
	if len(page.KVs) == 0 {
		return KV{Key: key}, &Error{Op: pb.KV_Range_FullMethodName, Err: fmt.Errorf("%w: %q", ErrNotFound, key)}
	}
	return page.KVs[0], nil
}

// List reads a range, in one answer, in the order of keys. Large ranges are
// better read with Scan, or in pages:
//
//	page, err := c.List(ctx, r, client.Limit(500))
//	for err == nil && page.More {
//		r = r.After(page.KVs[len(page.KVs)-1].Key)
//		page, err = c.List(ctx, r, client.Limit(500), client.AtRevision(page.Revision))
//	}
func (c *Client) List(ctx context.Context, r Range, opts ...ReadOption) (Page, error) {
	in := c.rangeRequest(r, opts)
	return c.list(ctx, in)
}

func (c *Client) list(ctx context.Context, in *read) (Page, error) {
	out := &pb.RangeResponse{}
	if err := c.send(ctx, pb.KV_Range_FullMethodName, in.RangeRequest, out); err != nil {
		return Page{}, err
	}
	page := Page{KVs: c.kvs(out.Kvs), Revision: Revision(in.Revision), Count: out.Count, More: out.More}
	if page.Revision == 0 {
		page.Revision = Revision(out.Header.GetRevision())
	}
	in.tell(page.Revision)
	return page, nil
}

// Count returns how many keys a range has.
func (c *Client) Count(ctx context.Context, r Range, opts ...ReadOption) (int64, error) {
	page, err := c.List(ctx, r, append(opts, func(in *read) { in.CountOnly = true })...)
	return page.Count, err
}

// ReadOption changes what a read returns.
type ReadOption func(*read)

type read struct {
	*pb.RangeRequest
	revision *Revision // who wants to know what was read; may be nil
}

func (r *read) tell(rev Revision) {
	if r.revision != nil {
		*r.revision = rev
	}
}

// Limit returns n keys at most.
func Limit(n int64) ReadOption { return func(in *read) { in.Limit = n } }

// AtRevision reads the store as it was then.
func AtRevision(r Revision) ReadOption {
	return func(in *read) { in.Revision = int64(r) }
}

// ReadRevision tells which revision was read. A watch After it misses nothing
// and repeats nothing.
func ReadRevision(into *Revision) ReadOption { return func(in *read) { in.revision = into } }

// KeysOnly leaves out the values.
func KeysOnly() ReadOption { return func(in *read) { in.KeysOnly = true } }

// Serializable lets one member answer by itself: cheaper, possible without a
// majority, and perhaps behind.
func Serializable() ReadOption { return func(in *read) { in.Serializable = true } }

// SortField is what an answer is sorted by.
type SortField int32

// What to sort by.
const (
	ByKey      = SortField(pb.RangeRequest_KEY)
	ByVersion  = SortField(pb.RangeRequest_VERSION)
	ByCreated  = SortField(pb.RangeRequest_CREATE)
	ByModified = SortField(pb.RangeRequest_MOD)
	ByValue    = SortField(pb.RangeRequest_VALUE)
)

// Ascending sorts by a field, lowest first.
func Ascending(by SortField) ReadOption { return sorted(by, pb.RangeRequest_ASCEND) }

// Descending sorts by a field, highest first.
func Descending(by SortField) ReadOption { return sorted(by, pb.RangeRequest_DESCEND) }

func sorted(by SortField, order pb.RangeRequest_SortOrder) ReadOption {
	return func(in *read) {
		in.SortTarget, in.SortOrder = pb.RangeRequest_SortTarget(by), order
	}
}

// ModifiedBetween leaves out keys that changed last outside of [from, to]; 0
// sets no bound.
func ModifiedBetween(from, to Revision) ReadOption {
	return func(in *read) { in.MinModRevision, in.MaxModRevision = int64(from), int64(to) }
}

// CreatedBetween leaves out keys that were created outside of [from, to]; 0 sets
// no bound.
func CreatedBetween(from, to Revision) ReadOption {
	return func(in *read) { in.MinCreateRevision, in.MaxCreateRevision = int64(from), int64(to) }
}

func (c *Client) rangeRequest(r Range, opts []ReadOption) *read {
	in := &read{RangeRequest: &pb.RangeRequest{}}
	in.Key, in.RangeEnd = c.wire(r)
	for _, o := range opts {
		o(in)
	}
	return in
}

// Put sets a key and returns the revision of the change.
func (c *Client) Put(ctx context.Context, key string, value []byte, opts ...WriteOption) (Revision, error) {
	in, w := c.putRequest(key, value, opts)
	out := &pb.PutResponse{}
	if err := c.send(ctx, pb.KV_Put_FullMethodName, in, out); err != nil {
		return 0, err
	}
	if w.previous != nil {
		*w.previous = c.previous(out.PrevKv)
	}
	return Revision(out.Header.GetRevision()), nil
}

func (c *Client) previous(m *mvccpb.KeyValue) []KV {
	if m == nil {
		return nil
	}
	return []KV{c.kv(m)}
}

// Deleted is what DeleteRange did.
type Deleted struct {
	Revision Revision // of the change; of the store, if there was nothing to delete
	Count    int64
}

// Delete deletes a key and reports whether it was there.
func (c *Client) Delete(ctx context.Context, key string, opts ...WriteOption) (bool, error) {
	d, err := c.DeleteRange(ctx, Key(key), opts...)
	return d.Count > 0, err
}

// DeleteRange deletes every key of a range, in one transaction.
func (c *Client) DeleteRange(ctx context.Context, r Range, opts ...WriteOption) (Deleted, error) {
	in, w := c.deleteRequest(r, opts)
	out := &pb.DeleteRangeResponse{}
	if err := c.send(ctx, pb.KV_DeleteRange_FullMethodName, in, out); err != nil {
		return Deleted{}, err
	}
	if w.previous != nil {
		*w.previous = c.kvs(out.PrevKvs)
	}
	return Deleted{Revision: Revision(out.Header.GetRevision()), Count: out.Deleted}, nil
}

// Compact gives up the history before a revision: what was overwritten or
// deleted by then can no longer be read or watched. Physically waits until the
// space is free for reuse.
func (c *Client) Compact(ctx context.Context, before Revision, physically bool) error {
	in := &pb.CompactionRequest{Revision: int64(before), Physical: physically}
	return c.send(ctx, pb.KV_Compact_FullMethodName, in, &pb.CompactionResponse{})
}

// WriteOption changes what a write does or returns.
type WriteOption func(*write)

type write struct {
	lease                LeaseID
	keepValue, keepLease bool
	wantsPrevious        bool
	previous             *[]KV
}

// WithLease makes the key's life depend on a lease.
func WithLease(id LeaseID) WriteOption { return func(w *write) { w.lease = id } }

// KeepValue leaves the key's value as it is, to change its lease only. The key
// must exist.
func KeepValue() WriteOption { return func(w *write) { w.keepValue = true } }

// KeepLease leaves the key's lease as it is. The key must exist.
func KeepLease() WriteOption { return func(w *write) { w.keepLease = true } }

// Previous returns what the write replaced or deleted: in *into, or, for an
// operation of a transaction, in its result (then into may be nil).
func Previous(into *[]KV) WriteOption {
	return func(w *write) { w.wantsPrevious, w.previous = true, into }
}

func (c *Client) putRequest(key string, value []byte, opts []WriteOption) (*pb.PutRequest, write) {
	var w write
	for _, o := range opts {
		o(&w)
	}
	in := &pb.PutRequest{
		Value: value, Lease: int64(w.lease), PrevKv: w.wantsPrevious, IgnoreValue: w.keepValue, IgnoreLease: w.keepLease,
	}
	in.Key, _ = c.wire(Key(key))
	return in, w
}

func (c *Client) deleteRequest(r Range, opts []WriteOption) (*pb.DeleteRangeRequest, write) {
	var w write
	for _, o := range opts {
		o(&w)
	}
	in := &pb.DeleteRangeRequest{PrevKv: w.wantsPrevious}
	in.Key, in.RangeEnd = c.wire(r)
	return in, w
}
