package server

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

func (s *solo) grant(t testing.TB, id, ttl int64) *pb.LeaseGrantResponse {
	t.Helper()
	resp, err := s.lease.LeaseGrant(callContext(t), &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (s *solo) put(t testing.TB, key string, lease int64) {
	t.Helper()
	if _, err := s.kv.Put(callContext(t), &pb.PutRequest{Key: []byte(key), Value: []byte("v"), Lease: lease}); err != nil {
		t.Fatal(err)
	}
}

func (s *solo) ttl(t testing.TB, id int64) *pb.LeaseTimeToLiveResponse {
	t.Helper()
	resp, err := s.lease.LeaseTimeToLive(callContext(t), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (s *solo) leaseExists(id int64) bool {
	_, ok := s.store.Lease(api.LeaseID(id))
	return ok
}

// keepAlive renews a lease once and returns the answer's TTL.
func (s *solo) keepAlive(ctx context.Context, t testing.TB, id int64) (*pb.LeaseKeepAliveResponse, error) {
	t.Helper()
	stream, err := s.lease.LeaseKeepAlive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.CloseSend()
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	return stream.Recv()
}

func TestLeaseAnswers(t *testing.T) {
	s := newSolo(t)
	ctx := callContext(t)
	if g := s.grant(t, 7, 100); g.ID != 7 || g.TTL != 100 || g.Error != "" || g.Header.Revision != 1 {
		t.Errorf("grant: %v", g)
	}
	for _, ttl := range []int64{-5, 0, 1} {
		if g := s.grant(t, 0, ttl); g.ID <= 0 || g.TTL != 2 {
			t.Errorf("grant of ttl %d: %v", ttl, g)
		}
	}
	if g := s.grant(t, 9, api.MaxLeaseTTL); g.TTL != api.MaxLeaseTTL {
		t.Errorf("longest grant: %v", g)
	}
	for _, c := range []struct {
		call func() error
		want *api.Error
	}{
		{func() error { _, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 5}); return err }, api.ErrLeaseExists},
		{func() error {
			_, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: api.MaxLeaseTTL + 1})
			return err
		}, api.ErrLeaseTTLTooLarge},
		{func() error { _, err := s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 8}); return err }, api.ErrLeaseNotFound},
		{func() error { _, err := s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{}); return err }, api.ErrLeaseNotFound},
		{func() error { _, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Lease: 8}); return err }, api.ErrLeaseNotFound},
	} {
		if err := c.call(); status.Code(err) != c.want.Code || status.Convert(err).Message() != c.want.Text {
			t.Errorf("got %v, want %v", err, c.want)
		}
	}
	s.put(t, "b", 7)
	s.put(t, "a", 7)
	s.put(t, "c", 7)
	s.put(t, "c", 0)
	if got := s.ttl(t, 7); got.ID != 7 || got.TTL != 100 || got.GrantedTTL != 100 || fmt.Sprintf("%s", got.Keys) != "[a b]" || got.Header.Revision != 5 {
		t.Errorf("time to live: %v", got)
	}
	s.clock.Advance(1500 * time.Millisecond)
	if got := s.ttl(t, 7); got.TTL != 98 {
		t.Errorf("time to live after 1.5 s: %v", got)
	}
	if got := s.ttl(t, 8); got.ID != 8 || got.TTL != -1 || got.GrantedTTL != 0 || got.Keys != nil || got.Header.Revision != 5 {
		t.Errorf("time to live of an absent lease: %v", got)
	}
	if got, err := s.keepAlive(ctx, t, 7); err != nil || got.ID != 7 || got.TTL != 100 || got.Header.Revision != 5 {
		t.Errorf("keep-alive: %v, %v", got, err)
	}
	if got, err := s.keepAlive(ctx, t, 8); err != nil || got.ID != 8 || got.TTL != 0 || got.Header.Revision != 5 {
		t.Errorf("keep-alive of an absent lease: %v, %v", got, err)
	}
	revoked, err := s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7})
	if err != nil || revoked.Header.Revision != 6 {
		t.Errorf("revoke: %v, %v", revoked, err)
	}
}

func TestLeasesAreListedByExpiry(t *testing.T) {
	s := newSolo(t)
	list := func() (ids []int64) {
		resp, err := s.lease.LeaseLeases(callContext(t), &pb.LeaseLeasesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range resp.Leases {
			ids = append(ids, l.ID)
		}
		return ids
	}
	for id, ttl := range map[int64]int64{1: 300, 2: 100, 3: 200} {
		s.grant(t, id, ttl)
	}
	if got := list(); !slices.Equal(got, []int64{2, 3, 1}) {
		t.Errorf("the leader lists %v", got)
	}
	s.log.elect(otherMember)
	waitFor(t, "the end of the term", func() bool { return s.lessor.term() == 0 })
	if got := list(); !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("a follower lists %v", got)
	}
}

func TestLeaseExpires(t *testing.T) {
	s := newSolo(t)
	s.grant(t, 1, 10)
	s.grant(t, 2, 20)
	s.put(t, "a", 1)
	s.put(t, "b", 1)
	s.put(t, "c", 2)
	s.clock.Advance(9 * time.Second)
	if _, err := s.keepAlive(callContext(t), t, 2); err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(time.Second)
	waitFor(t, "lease 1 to expire", func() bool { return !s.leaseExists(1) })
	if s.store.Revision() != 5 {
		t.Errorf("both keys of the lease go in one revision: it is %d, want 5", s.store.Revision())
	}
	s.clock.Advance(18 * time.Second)
	if got := s.ttl(t, 2); got.TTL != 1 {
		t.Errorf("lease 2 was renewed 19 s ago: %v", got)
	}
	s.clock.Advance(time.Second)
	waitFor(t, "lease 2 to expire", func() bool { return !s.leaseExists(2) })
}

// A keep-alive that meets an expired lease waits until it is gone.
func TestExpiredLeaseIsNotRenewed(t *testing.T) {
	s := newSolo(t)
	s.grant(t, 1, 10)
	s.log.setFailure(api.ErrTimeout) // the expiry does not come through
	s.clock.Advance(11 * time.Second)
	waitFor(t, "the expiry to be proposed", func() bool {
		s.log.mu.Lock()
		defer s.log.mu.Unlock()
		return s.log.mu.refused > 0
	})
	s.log.setFailure(nil)
	type result struct {
		resp *pb.LeaseKeepAliveResponse
		err  error
	}
	done := make(chan result, 1)
	ctx := callContext(t)
	go func() {
		resp, err := s.keepAlive(ctx, t, 1)
		done <- result{resp, err}
	}()
	select {
	case r := <-done:
		t.Fatalf("answered before the lease was gone: %v, %v", r.resp, r.err)
	case <-time.After(50 * time.Millisecond):
	}
	waitFor(t, "the expiry to be tried again", func() bool {
		s.clock.Advance(expiryRetry / 4)
		return !s.leaseExists(1)
	})
	if r := <-done; r.err != nil || r.resp.TTL != 0 {
		t.Errorf("got %v, %v", r.resp, r.err)
	}
}

// An expiry that reaches the log in a later term is void: the new leader may
// have renewed the lease.
func TestExpiryOfAnEarlierTermIsVoid(t *testing.T) {
	s := newSolo(t)
	s.grant(t, 1, 10)
	s.put(t, "a", 1)
	stale := leaseBatch{term: 1, leases: []leaseLeft{{id: 1}}}
	s.log.elect(soloMember)
	waitFor(t, "the new term", func() bool { return s.lessor.term() == 2 })
	s.log.replay(commandLeaseExpire, stale.encode())
	if !s.leaseExists(1) || s.store.Revision() != 2 {
		t.Fatal("a stale expiry revoked the lease")
	}
	stale.leases[0].remaining = 3
	s.log.replay(commandLeaseCheckpoint, stale.encode())
	if l, _ := s.store.Lease(1); l.Remaining != 0 {
		t.Fatal("a stale checkpoint was taken")
	}
	for _, body := range [][]byte{{0xff}, nil, (leaseBatch{term: 2, leases: []leaseLeft{{id: 99}}}).encode()} {
		s.log.replay(commandLeaseExpire, body)
		s.log.replay(commandLeaseCheckpoint, body)
	}
	fresh := leaseBatch{term: 2, leases: []leaseLeft{{id: 1}}}
	s.log.replay(commandLeaseExpire, fresh.encode())
	if s.leaseExists(1) || s.store.Revision() != 3 {
		t.Fatal("the expiry of the present term was not applied")
	}
}

func TestLeaseCheckpoints(t *testing.T) {
	s := newSolo(t)
	s.grant(t, 1, 1000)
	s.grant(t, 2, 100) // too short to be worth it
	remaining := func() int64 {
		l, _ := s.store.Lease(1)
		return l.Remaining
	}
	waitFor(t, "the first checkpoint", func() bool {
		s.clock.Advance(10 * time.Second)
		if _, err := s.keepAlive(callContext(t), t, 2); err != nil {
			t.Fatal(err)
		}
		return remaining() != 0
	})
	if r := remaining(); r != 700 {
		t.Errorf("%d s remain, want 700", r)
	}
	if l, _ := s.store.Lease(2); l.Remaining != 0 {
		t.Errorf("the short lease has a checkpoint: %+v", l)
	}
	// The next leader goes on from the checkpoint, one election timeout later.
	s.log.elect(soloMember)
	waitFor(t, "the new term", func() bool { return s.lessor.term() == 2 })
	if got := s.ttl(t, 1); got.TTL != 701 || got.GrantedTTL != 1000 {
		t.Errorf("the new leader says %v", got)
	}
	// A renewal takes the checkpoint back before it is answered.
	if got, err := s.keepAlive(callContext(t), t, 1); err != nil || got.TTL != 1000 || remaining() != 0 {
		t.Errorf("renewed: %v, %v; checkpoint %d", got, err, remaining())
	}
	if got := s.ttl(t, 1); got.TTL != 1000 {
		t.Errorf("after the renewal: %v", got)
	}
}

// A new leader starts all clocks anew, and not all at the same second.
func TestPromotionSpreadsExpiries(t *testing.T) {
	s := newSolo(t)
	const leases = 3 * promotedPerSecond
	for id := range leases {
		body, err := proto.Marshal(&pb.LeaseGrantRequest{ID: int64(id) + 1, TTL: 60})
		if err != nil {
			t.Fatal(err)
		}
		s.log.replay(commandLeaseGrant, body)
	}
	s.log.elect(soloMember)
	waitFor(t, "the new term", func() bool { return s.lessor.term() == 2 })
	waitFor(t, "all clocks to be spread", func() bool {
		s.lessor.mu.Lock()
		defer s.lessor.mu.Unlock()
		first, last := time.Time{}, time.Time{}
		for _, c := range s.lessor.mu.leases {
			if first.IsZero() || c.expiry.Before(first) {
				first = c.expiry
			}
			if c.expiry.After(last) {
				last = c.expiry
			}
			if c.expiry.Before(s.clock.Now().Add(61 * time.Second)) {
				t.Errorf("lease %d would expire early: %v", c.id, c.expiry)
			}
		}
		return len(s.lessor.mu.leases) == leases && last.Sub(first) > 2900*time.Millisecond
	})
	waitFor(t, "all to expire", func() bool {
		s.clock.Advance(time.Second)
		return len(s.store.Leases()) == 0
	})
}

// A leader that cannot reach a quorum renews nothing.
func TestKeepAliveNeedsAQuorum(t *testing.T) {
	s := newSolo(t)
	s.grant(t, 1, 100)
	s.log.setFailure(api.ErrTimeout)
	ctx, cancel := context.WithTimeout(callContext(t), 300*time.Millisecond)
	defer cancel()
	if got, err := s.keepAlive(ctx, t, 1); err == nil {
		t.Fatalf("renewed without a quorum: %v", got)
	}
	s.log.setFailure(nil)
	if got, err := s.keepAlive(callContext(t), t, 1); err != nil || got.TTL != 100 {
		t.Fatalf("with a quorum again: %v, %v", got, err)
	}
	// Just confirmed: no second round within a heartbeat.
	s.log.setFailure(api.ErrTimeout)
	if got, err := s.keepAlive(callContext(t), t, 1); err != nil || got.TTL != 100 {
		t.Fatalf("right after a confirmation: %v, %v", got, err)
	}
	s.log.setFailure(nil)
}

// A follower asks the leader, and asks again when that one does not lead.
func TestFollowerForwardsLeaseQuestions(t *testing.T) {
	s := newSolo(t)
	s.grant(t, 1, 100)
	calls := 0
	s.log.mu.Lock()
	s.log.mu.call = func(payload []byte) []byte {
		q, err := decodeLeaseQuestion(payload)
		if err != nil || q.id != 1 {
			t.Errorf("question %+v, %v", q, err)
		}
		if calls++; calls == 1 {
			return appendUint(nil, fieldAnswerKind, answerNotHere)
		}
		b := appendUint(nil, fieldAnswerKind, answerOK)
		b = appendInt(b, fieldAnswerTTL, 55)
		b = appendInt(b, fieldAnswerGranted, 100)
		return appendBytes(b, fieldAnswerKey, []byte("k"))
	}
	s.log.mu.Unlock()
	s.log.elect(otherMember)
	waitFor(t, "the end of the term", func() bool { return s.lessor.term() == 0 })
	type result struct {
		resp *pb.LeaseTimeToLiveResponse
		err  error
	}
	done := make(chan result, 1)
	ctx := callContext(t)
	go func() {
		resp, err := s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 1, Keys: true})
		done <- result{resp, err}
	}()
	var r result
	waitFor(t, "an answer", func() bool {
		s.clock.Advance(leaderRetry)
		select {
		case r = <-done:
			return true
		default:
			return false
		}
	})
	if r.err != nil || r.resp.TTL != 55 || r.resp.GrantedTTL != 100 || len(r.resp.Keys) != 1 || calls != 2 {
		t.Errorf("after %d calls: %v, %v", calls, r.resp, r.err)
	}
}

// What a member answers to a peer's question.
func TestLeaseAnswersToPeers(t *testing.T) {
	s := newSolo(t)
	s.grant(t, 1, 100)
	ask := func(q leaseQuestion) (leaseState, error) {
		b, err := s.answerLease(context.Background(), otherMember, q.encode())
		if err != nil {
			t.Fatal(err)
		}
		return decodeLeaseAnswer(b)
	}
	if got, err := ask(leaseQuestion{id: 1, renew: true}); err != nil || got.ttl != 100 {
		t.Errorf("renew: %+v, %v", got, err)
	}
	if _, err := ask(leaseQuestion{id: 2, renew: true}); err != error(api.ErrLeaseNotFound) {
		t.Errorf("absent: %v", err)
	}
	s.log.elect(otherMember)
	waitFor(t, "the end of the term", func() bool { return s.lessor.term() == 0 })
	if _, err := ask(leaseQuestion{id: 1}); err != error(api.ErrNotLeader) {
		t.Errorf("not the leader: %v", err)
	}
	if _, err := s.answerLease(context.Background(), otherMember, []byte{0xff}); err == nil {
		t.Error("malformed bytes were understood")
	}
}

func TestLeaseCallsWithoutALeaderTimeOut(t *testing.T) {
	s := newSolo(t)
	s.log.elect(0)
	done := make(chan error, 1)
	ctx := callContext(t)
	go func() {
		_, err := s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 1})
		done <- err
	}()
	var err error
	waitFor(t, "an answer", func() bool {
		s.clock.Advance(time.Second)
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	if status.Convert(err).Message() != api.ErrNoLeader.Text {
		t.Errorf("got %v", err)
	}
}
