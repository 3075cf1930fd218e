package auth

import (
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keelson-io/keelson/compat/cluster"
)

// TestCertificates: a client's certificate names a user who need not log in; a
// token comes first, a forged one, too.
func TestCertificates(t *testing.T) {
	certs, err := cluster.NewCerts(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, cluster.Options{Certs: certs})
	p.must("Auth/UserAdd", &pb.AuthUserAddRequest{Name: "cert", Options: &authpb.UserAddOptions{NoPassword: true}})
	p.users()
	p.must("Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "cert", Role: "some"})
	asks := []ask{
		req("KV/Put", "a", &pb.PutRequest{Key: []byte("a")}), req("KV/Put", "x", &pb.PutRequest{Key: []byte("x")}),
		readA, req("KV/Range", "x", get("x", "")), memberStatus, req("Auth/UserGet", "cert", &pb.AuthUserGetRequest{Name: "cert"}),
		req("Auth/UserGet", "root", &pb.AuthUserGetRequest{Name: "root"}), req("Auth/UserList", "", &pb.AuthUserListRequest{}),
		req("Lease/LeaseGrant", "", &pb.LeaseGrantRequest{ID: 9, TTL: 1000}), req("Lease/LeaseRevoke", "", &pb.LeaseRevokeRequest{ID: 9}),
		req("Auth/Authenticate", "cert", &pb.AuthenticateRequest{Name: "cert"}), req("Auth/AuthStatus", "", &pb.AuthStatusRequest{}),
		req("Maintenance/HashKV", "", &pb.HashKVRequest{}), req("Cluster/MemberList", "", &pb.MemberListRequest{}),
	}
	for _, name := range []string{"cert", "idle", "root", "a stranger", ""} {
		_, _, config, err := certs.Client(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.sides {
			conn, err := s.Members[0].Dial(grpc.WithTransportCredentials(credentials.NewTLS(config)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			s.conn = conn
		}
		for _, a := range asks {
			a.what += ", with a certificate of " + name
			for _, user := range []string{"", forger, "ann"} {
				p.same(a, user)
			}
		}
	}
}
