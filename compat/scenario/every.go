package scenario

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/wire"
)

// samples are requests of RPCs whose empty request says little.
var samples = map[string]proto.Message{
	"KV/Range": &pb.RangeRequest{Key: []byte("k")}, "KV/RangeStream": &pb.RangeRequest{Key: []byte("k")}, "KV/Put": &pb.PutRequest{Key: []byte("k")},
	"KV/DeleteRange": &pb.DeleteRangeRequest{Key: []byte("k")}, "KV/Compact": &pb.CompactionRequest{Revision: 1},
	"Watch/Watch":       &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}},
	"Lease/LeaseGrant":  &pb.LeaseGrantRequest{ID: 5, TTL: 100},
	"Cluster/MemberAdd": &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true}, "Cluster/MemberUpdate": &pb.MemberUpdateRequest{ID: 5, PeerURLs: []string{"http://127.0.0.1:1"}},
	"Maintenance/Downgrade": &pb.DowngradeRequest{Version: "3.6"}, "Maintenance/Alarm": &pb.AlarmRequest{},
	"Auth/Authenticate": &pb.AuthenticateRequest{Name: "root", Password: "x"}, "Auth/UserAdd": &pb.AuthUserAddRequest{Name: "u", Password: "p"},
	"Auth/RoleGrantPermission": &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{Key: []byte("k")}},
	"Lock/Lock":                &v3lockpb.LockRequest{Name: []byte("l"), Lease: 5}, "Election/Campaign": &epb.CampaignRequest{Name: []byte("e"), Lease: 5},
	"Election/Proclaim": &epb.ProclaimRequest{Leader: &epb.LeaderKey{Name: []byte("e"), Key: []byte("e/5"), Lease: 5}},
	"Election/Resign":   &epb.ResignRequest{Leader: &epb.LeaderKey{Name: []byte("e"), Key: []byte("e/5"), Lease: 5}},
}

// everyRPC sends each RPC to one member, all at once, and says how each ended.
func everyRPC(ctx context.Context, s *stage, conn grpc.ClientConnInterface, but ...string) {
	var mu sync.Mutex
	var lines []string
	var all sync.WaitGroup
	for _, m := range wire.Methods() {
		if slices.Contains(but, m.Name) {
			continue
		}
		all.Go(func() {
			req := samples[m.Name]
			if req == nil {
				req = m.Request()
			}
			call, cancel := context.WithTimeout(ctx, 15*time.Second)
			defer cancel()
			answers, err := m.Call(call, conn, req)
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, fmt.Sprintf("%s: %s, answered %v", m.Name, outcome(err), len(answers) > 0))
		})
	}
	all.Wait()
	slices.Sort(lines)
	s.lines = append(s.lines, lines...)
}

// atLearner: what a member that does not vote answers.
func atLearner(ctx context.Context, s *stage) {
	voter := s.cluster.Members[0]
	m, err := s.cluster.Place("learner")
	if err != nil {
		s.say("place: %v", err)
		return
	}
	_, err = pb.NewClusterClient(s.conns[0]).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{m.PeerURL}, IsLearner: true})
	s.say("add: %s", outcome(err))
	if err := s.cluster.Join(m, voter.Name+"="+voter.PeerURL+","+m.Name+"="+m.PeerURL, "existing"); err != nil {
		s.say("join: %v", err)
		return
	}
	conn, err := m.Dial()
	if err != nil {
		s.say("dial: %v", err)
		return
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	for ctx.Err() == nil { // until it serves
		if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true}); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	everyRPC(ctx, s, conn)
	_, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
	s.say("serializable range: %s", outcome(err))
	_, err = kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k"), Serializable: true}}}}})
	s.say("serializable txn: %s", outcome(err))
}

// withoutLeader: what the last of three members answers. Snapshots, defragmentation
// and hashes need nobody else; what waits for a leader ends with its time.
//
// Three are left out. etcd waits for a change of members for as long as the client
// does, kvd for its own time, and it refuses a member that does not exist at once.
// An Observe that is refused etcd ends without a word.
func withoutLeader(ctx context.Context, s *stage) {
	s.loseQuorum()
	everyRPC(ctx, s, s.conns[0], "Cluster/MemberRemove", "Cluster/MemberUpdate", "Election/Observe")
}
