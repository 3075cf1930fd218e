package server

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft"
)

// TestReplay follows users through a log: what was proposed in a name or a
// revision that no longer counts is told to be refused.
func TestReplay(t *testing.T) {
	r := NewReplay()
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}
	for i, c := range []struct {
		kind uint8
		who  string
		body proto.Message
		want error
	}{
		{commandPut, "", put, nil},
		{commandUserAdd, "", &pb.AuthUserAddRequest{Name: "root"}, nil},
		{commandRoleAdd, "", &pb.AuthRoleAddRequest{Name: "root"}, nil},
		{commandUserGrantRole, "", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}, nil},
		{commandAuthEnable, "", nil, nil},
		{commandPut, "", put, api.ErrUserEmpty},
		{commandDelete, "", &pb.DeleteRangeRequest{Key: []byte("k")}, api.ErrUserEmpty},
		{commandLeaseRevoke, "", &pb.LeaseRevokeRequest{ID: 7}, api.ErrUserEmpty},
		{commandPut, "1 root", put, api.ErrAuthOldRevision},
		{commandPut, "1000 root", put, nil},
		{commandPut, "1000 guest", put, api.ErrPermissionDenied},
		{commandUserAdd, "1000 guest", &pb.AuthUserAddRequest{Name: "other"}, api.ErrUserNotFound},
		{commandCompact, "", &pb.CompactionRequest{Revision: 1}, nil},
		{commandAuthDisable, "1000 root", nil, nil},
		{commandPut, "", put, nil},
	} {
		var body []byte
		if c.body != nil {
			var err error
			if body, err = proto.Marshal(c.body); err != nil {
				t.Fatal(err)
			}
		}
		logged, refused, err := r.Read(&raft.Command{Kind: c.kind, Principal: c.who, Body: body})
		if err != nil {
			t.Fatalf("command %d: %v", i, err)
		}
		if !errors.Is(refused, c.want) {
			t.Errorf("command %d is refused with %v, not %v", i, refused, c.want)
		}
		if _, own := c.body.(*pb.PutRequest); own && !proto.Equal(logged.Request, c.body) {
			t.Errorf("command %d asks for %v", i, logged.Request)
		}
	}
}
