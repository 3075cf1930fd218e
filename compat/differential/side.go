package differential

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/wire"
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
	auth    bool
	conns   []*grpc.ClientConn
	alive   map[holder]pb.Lease_LeaseKeepAliveClient // opened when needed
	streams [watchStreams]*watchStream               // likewise
	tokens  map[string]string                        // by user

	leases []int64         // ids the server chose, in the order of their grants
	number map[int64]int64 // such an id → its symbol
}

// holder is who keeps leases alive at a member.
type holder struct {
	member int
	user   string
}

func newSide(c *cluster.Cluster, auth bool) (*side, error) {
	s := &side{cluster: c, auth: auth, number: map[int64]int64{}, tokens: map[string]string{}, alive: map[holder]pb.Lease_LeaseKeepAliveClient{}}
	for _, m := range c.Members {
		conn, err := m.Dial()
		if err != nil {
			return nil, err
		}
		s.conns = append(s.conns, conn)
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
	long := ctx
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	member := op.Member % len(s.conns)
	req := resolve(op.Req, st, s.leases)
	send := ctx
	if user := op.User; user != "" {
		token, err := s.token(ctx, member, user, st)
		if err != nil {
			return s.answer(nil, fmt.Errorf("login of %s: %w", user, err))
		}
		send, long = wire.WithToken(ctx, token), wire.WithToken(long, token)
	}
	// On a cluster, what a member answers from its own state must not lag.
	if err := s.catchUp(ctx, member, st); err != nil {
		return s.answer(nil, fmt.Errorf("linearizable read before the request: %w", err))
	}
	a := s.send(send, long, op, req)
	if a.Code == codes.Unauthenticated {
		delete(s.tokens, op.User) // the next one logs in again
	}
	return a
}

func (s *side) send(ctx, long context.Context, op Op, req proto.Message) Answer {
	member := op.Member % len(s.conns)
	switch op.Kind {
	case Grant:
		return s.grant(ctx, member, req.(*pb.LeaseGrantRequest))
	case KeepAlive:
		return s.answer(s.keepAlive(long, holder{member, op.User}, req.(*pb.LeaseKeepAliveRequest)))
	}
	method, err := wire.Lookup(rpcs[op.Kind])
	if err != nil {
		return s.answer(nil, err)
	}
	answers, err := method.Call(ctx, s.conns[member], req)
	switch {
	case err != nil:
		return s.answer(nil, err)
	case op.Kind == RangeStream:
		return s.rangeStream(answers)
	}
	return s.answer(answers[0], nil)
}

// token is what the user's last login at any member yielded.
func (s *side) token(ctx context.Context, member int, user string, st state) (string, error) {
	if user == forger {
		return "forged", nil
	}
	if t := s.tokens[user]; t != "" {
		return t, nil
	}
	resp, err := pb.NewAuthClient(s.conns[member]).Authenticate(ctx, &pb.AuthenticateRequest{Name: user, Password: st.password(user)})
	if err != nil {
		return "", err
	}
	s.tokens[user] = resp.Token
	return resp.Token, nil
}

// stream gives a watch stream whose member has caught up: a control response
// carries the member's own revision.
func (s *side) stream(ctx context.Context, i int, st state) (*watchStream, error) {
	member := i % len(s.conns)
	if s.streams[i] == nil {
		send := ctx
		if user := streamUser(s.auth, i); user != "" {
			token, err := s.token(ctx, member, user, st)
			if err != nil {
				return nil, err
			}
			send = wire.WithToken(ctx, token)
		}
		w, err := openWatchStream(send, s.conns[member])
		if err != nil {
			return nil, fmt.Errorf("%s: open a watch stream: %w", s.cluster.System.Name, err)
		}
		s.streams[i] = w
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.streams[i], s.catchUp(ctx, member, st)
}

func (s *side) catchUp(ctx context.Context, member int, st state) error {
	if len(s.conns) == 1 {
		return nil
	}
	if st.enabled {
		token, err := s.token(ctx, member, keeper, st)
		if err != nil {
			return err
		}
		ctx = wire.WithToken(ctx, token)
	}
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

// keepAlive uses one long stream for a member and a user, as clients do.
func (s *side) keepAlive(ctx context.Context, who holder, req *pb.LeaseKeepAliveRequest) (proto.Message, error) {
	if s.alive[who] == nil {
		stream, err := pb.NewLeaseClient(s.conns[who.member]).LeaseKeepAlive(ctx)
		if err != nil {
			return nil, err
		}
		s.alive[who] = stream
	}
	stream := s.alive[who]
	_ = stream.Send(req) // Recv says why it failed
	resp, err := stream.Recv()
	if err != nil {
		delete(s.alive, who)
		return nil, err
	}
	return resp, nil
}

// rangeStream joins the chunks into one response, the way the API documents it,
// and checks that only the last chunk carries header, count and more.
func (s *side) rangeStream(chunks []proto.Message) Answer {
	joined := &pb.RangeResponse{}
	var broken []string
	last := false
	for _, chunk := range chunks {
		if last {
			broken = append(broken, "a chunk follows the one with the header")
		}
		r := chunk.(*pb.RangeStreamResponse).GetRangeResponse()
		last = r.GetHeader() != nil
		if !last && (r.GetCount() != 0 || r.GetMore()) {
			broken = append(broken, "count or more on a chunk that is not the last")
		}
		proto.Merge(joined, r)
	}
	if !last {
		broken = append(broken, fmt.Sprintf("none of %d chunks carries a header", len(chunks)))
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
	wire.Mask(msg)
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
