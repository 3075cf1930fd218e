package scenario

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

var scenarios = []scenario{
	{name: "lease expiry", members: 1, play: leaseExpiry},
	{name: "keep alive", members: 3, play: keepAlive},
	{name: "progress notify", members: 1, flags: []string{"--watch-progress-notify-interval=1s"}, play: progressNotify},
	{name: "leases in order", members: 1, play: leaseOrder},
	{name: "no leader", members: 3, play: noLeader},
	{name: "http", members: 1, play: httpEndpoints},
	{name: "http without leader", members: 3, play: func(ctx context.Context, s *stage) { s.loseQuorum(); httpEndpoints(ctx, s) }},
	{name: "health service", members: 1, play: healthService},
	{name: "status", members: 3, play: statuses},
	{name: "raw calls", members: 1, play: rawCalls},
	{name: "every call at a learner", members: 1, play: atLearner},
	{name: "every call without a leader", members: 3, play: withoutLeader},
}

// leaseExpiry: keys of one lease go in byte order, in one revision, no earlier
// than the TTL and soon after it.
func leaseExpiry(ctx context.Context, s *stage) {
	lease := pb.NewLeaseClient(s.conns[0])
	out, ended := s.watch(ctx, 0, &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true})
	s.next("create", out, ended, 5*time.Second)
	grant, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 77, TTL: 1})
	granted := time.Now()
	s.say("grant: %s, TTL %d", outcome(err), grant.GetTTL())
	for _, k := range []string{"b", "a", "c"} {
		_, err := s.kv(0).Put(ctx, &pb.PutRequest{Key: []byte(k), Value: []byte(k), Lease: 77})
		s.say("put: %s", outcome(err))
	}
	for n := 0; n < 6; {
		resp := s.next("expiry", out, ended, 15*time.Second)
		if resp == nil {
			return
		}
		for _, ev := range resp.Events {
			s.say("event: %v", ev)
			n++
		}
	}
	took := time.Since(granted)
	s.say("not before the TTL: %v; within four seconds after it: %v", took >= time.Duration(grant.GetTTL())*time.Second-100*time.Millisecond,
		took < time.Duration(grant.GetTTL()+4)*time.Second)
	ttl, err := lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 77, Keys: true})
	s.say("time to live: %s, %d, %d, %q, revision %d", outcome(err), ttl.GetTTL(), ttl.GetGrantedTTL(), ttl.GetKeys(), ttl.GetHeader().GetRevision())
	_, err = s.kv(0).Put(ctx, &pb.PutRequest{Key: []byte("d"), Lease: 77})
	s.say("put after expiry: %s", outcome(err))
	again, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 77, TTL: 100})
	s.say("grant again: %s, TTL %d", outcome(err), again.GetTTL())
}

// keepAlive: through every member, a lease of five seconds is kept for longer.
func keepAlive(ctx context.Context, s *stage) {
	for i := range s.conns {
		lease := pb.NewLeaseClient(s.conns[i])
		id := int64(100 + i)
		_, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 5})
		s.say("grant: %s", outcome(err))
		_, err = s.kv(i).Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "kept%d", i), Lease: id})
		s.say("put: %s", outcome(err))
		stream, err := lease.LeaseKeepAlive(ctx)
		if err != nil {
			s.say("keep alive: %s", outcome(err))
			return
		}
		for range 7 {
			var resp *pb.LeaseKeepAliveResponse
			if err = stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err == nil {
				resp, err = stream.Recv()
			}
			if err != nil || resp.TTL != 5 {
				s.say("keep alive: %s, TTL %d", outcome(err), resp.GetTTL())
			}
			time.Sleep(800 * time.Millisecond)
		}
		get, err := s.kv(i).Range(ctx, &pb.RangeRequest{Key: fmt.Appendf(nil, "kept%d", i)})
		s.say("kept: %s, %d", outcome(err), get.GetCount())
		err = stream.Send(&pb.LeaseKeepAliveRequest{ID: 4711})
		resp, recvErr := stream.Recv()
		s.say("keep alive of no lease: %s, %s, TTL %d, ID %d", outcome(err), outcome(recvErr), resp.GetTTL(), resp.GetID())
	}
}

// progressNotify: a quiet watch is told the revision now and then; one that gets
// events is told with them.
func progressNotify(ctx context.Context, s *stage) {
	out, ended := s.watch(ctx, 0, &pb.WatchCreateRequest{Key: []byte("quiet"), ProgressNotify: true, WatchId: 9})
	s.next("create", out, ended, 5*time.Second)
	for range 3 {
		_, err := s.kv(0).Put(ctx, &pb.PutRequest{Key: []byte("other")})
		s.say("put: %s", outcome(err))
	}
	for range 2 {
		resp := s.next("progress", out, ended, 10*time.Second)
		s.say("progress: watch %d, %d events, revision %d, created %v, canceled %v", resp.GetWatchId(), len(resp.GetEvents()),
			resp.GetHeader().GetRevision(), resp.GetCreated(), resp.GetCanceled())
	}
	_, err := s.kv(0).Put(ctx, &pb.PutRequest{Key: []byte("quiet"), Value: []byte("v")})
	s.say("put: %s", outcome(err))
	resp := s.next("event", out, ended, 10*time.Second)
	for len(resp.GetEvents()) == 0 && resp != nil {
		resp = s.next("event", out, ended, 10*time.Second)
	}
	s.say("event: %v", resp.GetEvents())
	resp = s.next("progress", out, ended, 10*time.Second)
	s.say("progress: watch %d, %d events, revision %d", resp.GetWatchId(), len(resp.GetEvents()), resp.GetHeader().GetRevision())
}

// leaseOrder: leases are listed by their expiry.
func leaseOrder(ctx context.Context, s *stage) {
	lease := pb.NewLeaseClient(s.conns[0])
	for i, ttl := range []int64{5000, 1000, 9000, 3000, 7000} {
		_, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(i + 1), TTL: ttl})
		s.say("grant: %s", outcome(err))
	}
	list := func() {
		resp, err := lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		s.say("leases: %s, %v", outcome(err), resp.GetLeases())
	}
	list()
	_, err := lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 4})
	s.say("revoke: %s", outcome(err))
	list()
}

// loseQuorum kills all members but the first, and waits until it knows.
func (s *stage) loseQuorum() {
	for _, m := range s.cluster.Members[1:] {
		m.Kill()
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		status, err := s.cluster.Members[0].Status(ctx)
		cancel()
		if err == nil && status.Leader == 0 {
			return
		}
	}
	s.say("the last member still believes in a leader")
}

// noLeader: what each call answers while there is none.
func noLeader(ctx context.Context, s *stage) {
	_, err := s.kv(0).Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")})
	s.say("put: %s", outcome(err))
	free, freeEnded := s.watch(ctx, 0, &pb.WatchCreateRequest{Key: []byte("a")})
	bound, boundEnded := s.watch(requireLeader(ctx), 0, &pb.WatchCreateRequest{Key: []byte("a")})
	s.next("create", free, freeEnded, 5*time.Second)
	s.next("create", bound, boundEnded, 5*time.Second)
	s.loseQuorum()
	select {
	case err := <-boundEnded:
		s.say("watch that requires a leader: %s", outcome(err))
	case <-time.After(20 * time.Second):
		s.say("watch that requires a leader: still open")
	}
	select {
	case err := <-freeEnded:
		s.say("watch that does not: %s", outcome(err))
	default:
		s.say("watch that does not: still open")
	}
	again, againEnded := s.watch(requireLeader(ctx), 0, &pb.WatchCreateRequest{Key: []byte("a")})
	s.next("new watch", again, againEnded, 10*time.Second)
	_, err = s.kv(0).Range(requireLeader(ctx), &pb.RangeRequest{Key: []byte("a")})
	s.say("range that requires a leader: %s", outcome(err))
	resp, err := s.kv(0).Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
	s.say("serializable range: %s, %v", outcome(err), resp.GetKvs())
	lease := pb.NewLeaseClient(s.conns[0])
	calls := map[string]func() error{
		"range":   func() error { _, err := s.kv(0).Range(ctx, &pb.RangeRequest{Key: []byte("a")}); return err },
		"put":     func() error { _, err := s.kv(0).Put(ctx, &pb.PutRequest{Key: []byte("a")}); return err },
		"grant":   func() error { _, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 100}); return err },
		"compact": func() error { _, err := s.kv(0).Compact(ctx, &pb.CompactionRequest{Revision: 2}); return err },
		"member list": func() error {
			_, err := pb.NewClusterClient(s.conns[0]).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			return err
		},
		"local member list": func() error {
			_, err := pb.NewClusterClient(s.conns[0]).MemberList(ctx, &pb.MemberListRequest{})
			return err
		},
		"time to live": func() error { _, err := lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 1}); return err },
	}
	s.concurrently(calls)
	status, err := s.cluster.Members[0].Status(ctx)
	s.say("status: %s, leader %d, errors %q", outcome(err), status.GetLeader(), status.GetErrors())
}

// concurrently makes calls that take long at the same time and tells their
// outcomes in the order of their names.
func (s *stage) concurrently(calls map[string]func() error) {
	names := sortedNames(calls)
	results := make([]chan string, len(names))
	for i, name := range names {
		results[i] = make(chan string, 1)
		go func() { results[i] <- outcome(calls[name]()) }()
	}
	for i, name := range names {
		s.say("%s: %s", name, <-results[i])
	}
}

// httpEndpoints: the bodies that probes and dashboards read.
func httpEndpoints(ctx context.Context, s *stage) {
	base := s.cluster.Members[0].ClientURL()
	for _, path := range []string{"/health", "/health?serializable=true", "/health?exclude=NOSPACE", "/health?exclude=NOSUCH", "/version",
		"/livez", "/readyz", "/livez?verbose", "/readyz?verbose", "/livez/serializable_read", "/readyz/linearizable_read", "/readyz/data_corruption",
		"/readyz/nosuch", "/readyz?exclude=linearizable_read&verbose", "/readyz?allowlist=data_corruption&verbose", "/nosuch"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		if err != nil {
			s.say("%s: %v", path, err)
			continue
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.say("%s: %v", path, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		s.say("%s: %d %q %q", path, resp.StatusCode, resp.Header.Get("Content-Type"), checks(masked(string(body))))
	}
	for _, path := range []string{"/health", "/version", "/livez"} {
		resp, err := http.Post(base+path, "text/plain", nil)
		if err != nil {
			s.say("POST %s: %v", path, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		s.say("POST %s: %d %q, allow %q", path, resp.StatusCode, body, resp.Header.Get("Allow"))
	}
}

// checks sorts the lines of single checks, which etcd gives in the order of a map.
func checks(body string) string {
	lines := strings.SplitAfter(body, "\n")
	n := 0
	for n < len(lines) && strings.HasPrefix(lines[n], "[") {
		n++
	}
	slices.Sort(lines[:n])
	return strings.Join(lines, "")
}

func healthService(ctx context.Context, s *stage) {
	health := healthpb.NewHealthClient(s.conns[0])
	for _, service := range []string{"", "etcdserverpb.KV", "nosuch"} {
		resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		s.say("check %q: %s, %v", service, outcome(err), resp.GetStatus())
	}
}

// statuses: all fields of Status that are not sizes, ids or indexes.
func statuses(ctx context.Context, s *stage) {
	leaders := 0
	for _, m := range s.cluster.Members {
		st, err := m.Status(ctx)
		s.say("status: %s, version %q, storage %q, learner %v, errors %q, quota %d, downgrade %v, has leader %v, sizes %v, indexes %v, header revision %d",
			outcome(err), st.GetVersion(), st.GetStorageVersion(), st.GetIsLearner(), st.GetErrors(), st.GetDbSizeQuota(), st.GetDowngradeInfo(),
			st.GetLeader() != 0, st.GetDbSize() > 0 && st.GetDbSizeInUse() > 0 && st.GetDbSizeInUse() <= st.GetDbSize(),
			st.GetRaftIndex() >= st.GetRaftAppliedIndex() && st.GetRaftTerm() > 0, st.GetHeader().GetRevision())
		if st.GetLeader() == st.GetHeader().GetMemberId() {
			leaders++
		}
	}
	s.say("%d leader", leaders)
	list, err := pb.NewClusterClient(s.conns[0]).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	s.say("members: %s, %d, revision %d", outcome(err), len(list.GetMembers()), list.GetHeader().GetRevision())
}
