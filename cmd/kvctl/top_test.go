package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/keelson-io/keelson/server"
)

// TestTop: what is asked for the most comes first, over all members.
func TestTop(t *testing.T) {
	members, all := endpoints(t, plan(t, 1, t.TempDir()))
	conn, err := grpc.NewClient(members[0].endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	for i := range 1000 {
		key := "/app/hot/one"
		if i%5 == 0 {
			key = fmt.Sprint("/app/cold/", i)
		}
		if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte(key)}); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(must(t, "--endpoints", all, "top", "--cluster", "-o", "table"), "\n")
	if len(lines) < 3 || !regexp.MustCompile(`^NAME +REQ/S`).MatchString(lines[0]) || !regexp.MustCompile(`^/app/hot/ +[\d.]+ +0\.0 +[\d.]+ .*\d+%$`).MatchString(lines[1]) {
		t.Errorf("prefixes:\n%s", strings.Join(lines, "\n"))
	}
	if got := must(t, "--endpoints", all, "top", "keys", "-n", "1"); !strings.HasPrefix(got, "/app/hot/one, ") || strings.Count(got, "\n") != 1 {
		t.Errorf("keys: %s", got)
	}
	if got := must(t, "--endpoints", all, "top", "clients"); !strings.HasPrefix(got, "127.0.0.1, ") {
		t.Errorf("clients: %s", got)
	}
	var reports []server.TopReport
	if err := json.Unmarshal([]byte(must(t, "--endpoints", all, "top", "-o", "json")), &reports); err != nil || len(reports) != 1 || reports[0].Keys[0].Name != "/app/hot/one" {
		t.Errorf("JSON: %v %+v", err, reports)
	}
	if o := kvctl(t, "", "--endpoints", all, "top", "everything"); o.code != exitUsage {
		t.Errorf("a kind that there is not: %+v", o)
	}
}

// TestTopIsForRoot: keys are data.
func TestTopIsForRoot(t *testing.T) {
	members, all := endpoints(t, plan(t, 1, t.TempDir()))
	conn, err := grpc.NewClient(members[0].endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	auth := pb.NewAuthClient(conn)
	for _, name := range []string{"root", "ann"} {
		if _, err := auth.UserAdd(t.Context(), &pb.AuthUserAddRequest{Name: name, Password: "pw"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := auth.UserGrantRole(t.Context(), &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.AuthEnable(t.Context(), &pb.AuthEnableRequest{}); err != nil {
		t.Fatal(err)
	}
	if o := kvctl(t, "", "--endpoints", all, "--user", "ann:pw", "top"); o.code != exitDenied {
		t.Errorf("as ann: %+v", o)
	}
	if o := kvctl(t, "", "--endpoints", all, "--user", "root:pw", "top"); o.code != exitOK {
		t.Errorf("as root: %+v", o)
	}
	if o := kvctl(t, "", "--endpoints", all, "top"); o.code == exitOK {
		t.Errorf("as nobody: %+v", o)
	}
}
