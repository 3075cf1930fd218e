package differential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/cluster"
)

// callTimeout ends a call that a store does not answer: a difference too.
const callTimeout = 30 * time.Second

// Answer is what a store said, with what may differ taken out.
type Answer struct {
	Msg  proto.Message // nil when Code is not OK and nothing came before the error
	Code codes.Code
	Text string // of the error
	// Broken lists rules of the contract the answer violates by itself.
	Broken []string
}

// side is one of the two stores. It belongs to the runner's goroutine for it.
type side struct {
	cluster *cluster.Cluster
	conns   []*grpc.ClientConn
	alive   []pb.Lease_LeaseKeepAliveClient // one stream a member, opened when needed
	streams [watchStreams]*watchStream

	leases []int64         // ids the server chose, in the order of their grants
	number map[int64]int64 // such an id → its symbol
}

func newSide(ctx context.Context, c *cluster.Cluster) (*side, error) {
	s := &side{cluster: c, number: map[int64]int64{}, alive: make([]pb.Lease_LeaseKeepAliveClient, len(c.Members))}
	for _, m := range c.Members {
		conn, err := m.Dial()
		if err != nil {
			return nil, err
		}
		s.conns = append(s.conns, conn)
	}
	for i := range s.streams {
		ws, err := openWatchStream(ctx, s.conns[i%len(s.conns)])
		if err != nil {
			return nil, fmt.Errorf("%s: open a watch stream: %w", c.System.Name, err)
		}
		s.streams[i] = ws
	}
	return s, nil
}

func (s *side) close() {
	for _, c := range s.conns {
		c.Close()
	}
}

// do sends one request, waits for the answer and masks it. Watch operations are
// not for it.
func (s *side) do(ctx context.Context, op Op, st state) Answer {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	member := op.Member % len(s.conns)
	// On a cluster, what a member answers from its own state must not lag.
	if len(s.conns) > 1 {
		if err := s.catchUp(ctx, member); err != nil {
			return s.answer(nil, fmt.Errorf("linearizable read before the request: %w", err))
		}
	}
	req := resolve(op.Req, st, s.leases)
	if op.Kind == Grant {
		return s.grant(ctx, member, req.(*pb.LeaseGrantRequest))
	}
	if op.Kind == RangeStream {
		return s.rangeStream(ctx, member, req.(*pb.RangeRequest))
	}
	msg, err := s.call(ctx, member, op.Kind, req)
	return s.answer(msg, err)
}

func (s *side) call(ctx context.Context, member int, kind Kind, req proto.Message) (proto.Message, error) {
	conn := s.conns[member]
	kv, lease := pb.NewKVClient(conn), pb.NewLeaseClient(conn)
	switch kind {
	case Range:
		return kv.Range(ctx, req.(*pb.RangeRequest))
	case Put:
		return kv.Put(ctx, req.(*pb.PutRequest))
	case Delete:
		return kv.DeleteRange(ctx, req.(*pb.DeleteRangeRequest))
	case Txn:
		return kv.Txn(ctx, req.(*pb.TxnRequest))
	case Compact:
		return kv.Compact(ctx, req.(*pb.CompactionRequest))
	case Revoke:
		return lease.LeaseRevoke(ctx, req.(*pb.LeaseRevokeRequest))
	case TimeToLive:
		return lease.LeaseTimeToLive(ctx, req.(*pb.LeaseTimeToLiveRequest))
	case Leases:
		return lease.LeaseLeases(ctx, req.(*pb.LeaseLeasesRequest))
	case KeepAlive:
		return s.keepAlive(lease, member, req.(*pb.LeaseKeepAliveRequest))
	}
	return nil, fmt.Errorf("no call for %q", kind)
}

// stream gives a watch stream whose member has caught up: a control response
// carries the member's own revision.
func (s *side) stream(ctx context.Context, i int) (*watchStream, error) {
	if len(s.conns) == 1 {
		return s.streams[i], nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.streams[i], s.catchUp(ctx, i%len(s.conns))
}

func (s *side) catchUp(ctx context.Context, member int) error {
	_, err := pb.NewKVClient(s.conns[member]).Range(ctx, &pb.RangeRequest{Key: []byte("catchup"), CountOnly: true})
	return err
}

func (s *side) grant(ctx context.Context, member int, req *pb.LeaseGrantRequest) Answer {
	resp, err := pb.NewLeaseClient(s.conns[member]).LeaseGrant(ctx, req)
	if err == nil && req.ID == 0 {
		if resp.ID < 1<<32 {
			return Answer{Broken: []string{fmt.Sprintf("the server chose the small lease id %d", resp.ID)}}
		}
		s.number[resp.ID] = symLease + int64(len(s.leases))
		s.leases = append(s.leases, resp.ID)
	}
	return s.answer(resp, err)
}

// keepAlive uses one long stream a member, as clients do.
func (s *side) keepAlive(lease pb.LeaseClient, member int, req *pb.LeaseKeepAliveRequest) (proto.Message, error) {
	if s.alive[member] == nil {
		stream, err := lease.LeaseKeepAlive(context.Background())
		if err != nil {
			return nil, err
		}
		s.alive[member] = stream
	}
	stream := s.alive[member]
	err := stream.Send(req)
	var resp *pb.LeaseKeepAliveResponse
	if err == nil {
		resp, err = stream.Recv()
	}
	if err != nil {
		s.alive[member] = nil
		return nil, err
	}
	return resp, nil
}

// rangeStream joins the chunks into one response, the way the API documents it,
// and checks that only the last chunk carries header, count and more.
func (s *side) rangeStream(ctx context.Context, member int, req *pb.RangeRequest) Answer {
	stream, err := pb.NewKVClient(s.conns[member]).RangeStream(ctx, req)
	if err != nil {
		return s.answer(nil, err)
	}
	joined := &pb.RangeResponse{}
	var broken []string
	chunks, last := 0, false
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return s.answer(nil, err)
		}
		if last {
			broken = append(broken, "a chunk follows the one with the header")
		}
		r := chunk.GetRangeResponse()
		last = r.GetHeader() != nil
		if !last && (r.GetCount() != 0 || r.GetMore()) {
			broken = append(broken, "count or more on a chunk that is not the last")
		}
		proto.Merge(joined, r)
		chunks++
	}
	if !last {
		broken = append(broken, fmt.Sprintf("none of %d chunks carries a header", chunks))
	}
	a := s.answer(joined, nil)
	a.Broken = append(a.Broken, broken...)
	return a
}

// answer masks what may differ.
func (s *side) answer(msg proto.Message, err error) Answer {
	if err != nil {
		st := status.Convert(err)
		return Answer{Code: st.Code(), Text: st.Message()}
	}
	if h, ok := msg.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		maskHeader(h.GetHeader())
	}
	mapInt64(msg.ProtoReflect(), func(v int64) int64 {
		if n, ok := s.number[v]; ok {
			return n
		}
		return v
	})
	switch m := msg.(type) {
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(m.Keys, slices.Compare)
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(m.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	}
	return Answer{Msg: msg}
}

// maskHeader takes out ids and terms. The rest of the header must be equal.
func maskHeader(h *pb.ResponseHeader) {
	if h != nil {
		h.ClusterId, h.MemberId, h.RaftTerm = 0, 0, 0
	}
}
