package client

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// How Scan reads. A small range costs one request. What is larger comes through
// a stream, or, from a server that has none, in pages of about pageBytes.
const (
	firstPage = 256
	pageBytes = 1 << 20
	maxPage   = 10_000
)

var errScanSorted = errors.New("Scan reads in the order of keys; use List for other orders")

// Scan reads a range of any size, in the order of keys, all of it at one
// revision, without ever holding much of it in memory. It goes on at another
// member when one fails. An error, if there is one, comes last.
//
//	for kv, err := range c.Scan(ctx, client.Prefix("/jobs/")) {
//		if err != nil {
//			return err
//		}
//		...
//	}
func (c *Client) Scan(ctx context.Context, r Range, opts ...ReadOption) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		s := scan{c: c, in: c.rangeRequest(r, opts), each: func(kv KV) bool { return yield(kv, nil) }}
		if err := s.run(ctx); err != nil {
			yield(KV{}, err)
		}
	}
}

// scan is a Scan on its way. Its request is always for what is still missing.
type scan struct {
	c       *Client
	in      *read
	each    func(KV) bool
	stopped bool // the caller has enough
	done    bool
	page    int64
}

func (s *scan) run(ctx context.Context) error {
	if s.in.SortTarget != pb.RangeRequest_KEY || s.in.SortOrder == pb.RangeRequest_DESCEND {
		return &Error{Op: pb.KV_Range_FullMethodName, Err: errScanSorted}
	}
	s.page = firstPage
	if err := s.next(ctx); err != nil || s.over() {
		return err
	}
	filtered := s.in.MinModRevision|s.in.MaxModRevision|s.in.MinCreateRevision|s.in.MaxCreateRevision != 0
	if !filtered && !s.c.pageOnly.Load() {
		err := s.stream(ctx)
		if status.Code(errors.Unwrap(err)) != codes.Unimplemented {
			return err
		}
		s.c.pageOnly.Store(true)
	}
	for !s.over() {
		if err := s.next(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *scan) over() bool { return s.done || s.stopped }

// next reads a page. The first one fixes the revision.
func (s *scan) next(ctx context.Context) error {
	in := proto.Clone(s.in.RangeRequest).(*pb.RangeRequest)
	in.Limit = s.page
	if s.in.Limit > 0 {
		in.Limit = min(in.Limit, s.in.Limit)
	}
	out := &pb.RangeResponse{}
	if err := s.c.send(ctx, pb.KV_Range_FullMethodName, in, out); err != nil {
		return err
	}
	if s.in.Revision == 0 {
		s.in.Revision = out.Header.GetRevision()
	}
	s.in.tell(Revision(s.in.Revision))
	s.take(out.Kvs)
	s.done = s.done || !out.More
	s.page = min(max(1, s.page*pageBytes/int64(proto.Size(out)+1)), maxPage)
	return nil
}

// take hands keys to the caller and moves the request behind them.
func (s *scan) take(kvs []*mvccpb.KeyValue) {
	for _, m := range kvs {
		if s.stopped = !s.each(s.c.kv(m)); s.stopped {
			return
		}
	}
	if len(kvs) == 0 {
		return
	}
	s.in.Key = append(kvs[len(kvs)-1].Key, 0)
	if s.in.Limit > 0 {
		s.in.Limit -= int64(len(kvs))
		s.done = s.in.Limit == 0
	}
}

// stream reads the rest. A stream that breaks is opened anew where it broke.
func (s *scan) stream(ctx context.Context) error {
	how := requestOf(pb.KV_RangeStream_FullMethodName, s.in.RangeRequest)
	how.stream = true
	return s.c.try(ctx, how, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := pb.NewKVClient(conn).RangeStream(ctx, s.in.RangeRequest)
		for err == nil && !s.over() {
			var m *pb.RangeStreamResponse
			if m, err = stream.Recv(); err == nil {
				s.take(m.GetRangeResponse().GetKvs())
			}
		}
		if err == io.EOF {
			s.done, err = true, nil
		}
		return err
	}, nil)
}
