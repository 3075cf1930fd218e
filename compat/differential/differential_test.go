package differential

import (
	"bytes"
	"context"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/wire"
)

// TestDifferential compares etcd with the store named by STORE (kvd by default).
// N sets the number of operations, SEED the seed; the failure names the command
// that replays it.
func TestDifferential(t *testing.T) {
	pair, err := cluster.Pair()
	if err != nil {
		t.Fatal(err)
	}
	name, seed := pair[1].Name, number(t, "SEED", 20260801)
	n := number(t, "N", 4000)
	for _, w := range []struct {
		name    string
		n       int
		session Session
	}{
		{"1member", n, Session{Members: 1}}, {"3members", n / 4, Session{Members: 3}},
		{"users", n / 2, Session{Members: 1, Auth: true}}, {"TLS,3members,users", n / 4, Session{Members: 3, Auth: true, TLS: true}},
	} {
		t.Run(w.name, func(t *testing.T) {
			s := w.session
			s.Left, s.Right, s.Dir = pair[0], pair[1], t.TempDir()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			res, err := s.Seed(ctx, uint64(seed), w.n)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range res.Differences {
				t.Errorf("%s\nreplay: make -C compat differential SEED=%d N=%d MEMBERS=%d RIGHT=%s ARGS='-auth=%v -tls=%v'", d, seed, len(res.Ops), s.Members, name, s.Auth, s.TLS)
			}
			covers(t, res, w.n)
		})
	}
}

// covers makes sure that a passing run compared what it is there for.
func covers(t *testing.T, res Result, n int) {
	if len(res.Differences) > 0 || n < 4000 {
		return
	}
	if res.Events < n/2 || res.Revision < int64(n/10) {
		t.Errorf("only %d events and %d revisions from %d operations", res.Events, res.Revision, n)
	}
	for _, text := range []string{
		"etcdserver: duplicate key given in txn request", "etcdserver: invalid sort option", "etcdserver: key is not provided",
		"etcdserver: key not found", "etcdserver: lease already exists", "etcdserver: lease is provided",
		"etcdserver: mvcc: required revision has been compacted", "etcdserver: mvcc: required revision is a future revision",
		"etcdserver: requested lease not found", "etcdserver: too large lease TTL",
		"etcdserver: too many operations in txn request", "etcdserver: value is provided",
	} {
		if res.Errors[text] == 0 {
			t.Errorf("no request was refused with %q", text)
		}
	}
}

func number(t *testing.T, env string, def int) int {
	v := os.Getenv(env)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", env, err)
	}
	return n
}

func TestGeneratorIsPure(t *testing.T) {
	for _, auth := range []bool{false, true} {
		a, b := NewGenerator(7, auth), NewGenerator(7, auth)
		var ops []Op
		for range 20_000 {
			x, y := a.Next(), b.Next()
			if !equalOps(x, y) {
				t.Fatalf("one seed, two sequences: %v and %v", x, y)
			}
			ops = append(ops, x)
		}
		var file bytes.Buffer
		if err := WriteOps(&file, ops[:2000]); err != nil {
			t.Fatal(err)
		}
		back, err := ReadOps(&file)
		if err != nil {
			t.Fatal(err)
		}
		for i, op := range back {
			if !equalOps(op, ops[i]) {
				t.Fatalf("op %d changed in the replay file: %v, was %v", i, op, ops[i])
			}
		}
	}
}

func equalOps(a, b Op) bool {
	return a.Kind == b.Kind && a.Member == b.Member && a.Stream == b.Stream && a.User == b.User && proto.Equal(a.Req, b.Req)
}

// TestEveryRPC: each RPC of etcd's protocol is generated, or it is said where else
// it is compared. A new one fails here.
func TestEveryRPC(t *testing.T) {
	generated := map[string]bool{"Watch/Watch": true}
	g := NewGenerator(1, true)
	for range 50_000 {
		generated[rpcs[g.Next().Kind]] = true
	}
	for _, m := range wire.Methods() {
		if elsewhere := notGenerated[m.Name]; generated[m.Name] == (elsewhere != "") {
			t.Errorf("%s: generated %v, compared elsewhere: %q", m.Name, generated[m.Name], elsewhere)
		}
	}
}

// TestComparison shows that each kind of difference is seen.
func TestComparison(t *testing.T) {
	ok := func(m proto.Message) Answer { return Answer{Msg: m} }
	for name, pair := range map[string][2]Answer{
		"a field":        {ok(&pb.RangeResponse{Count: 1}), ok(&pb.RangeResponse{Count: 2})},
		"a header":       {ok(&pb.PutResponse{Header: &pb.ResponseHeader{Revision: 2}}), ok(&pb.PutResponse{Header: &pb.ResponseHeader{Revision: 3}})},
		"no header":      {ok(&pb.PutResponse{Header: &pb.ResponseHeader{}}), ok(&pb.PutResponse{})},
		"an error":       {Answer{Code: 3, Text: "x"}, ok(&pb.PutResponse{})},
		"a text":         {Answer{Code: 3, Text: "x"}, Answer{Code: 3, Text: "y"}},
		"a code":         {Answer{Code: 3, Text: "x"}, Answer{Code: 4, Text: "x"}},
		"a TTL":          {ok(&pb.LeaseTimeToLiveResponse{TTL: 100}), ok(&pb.LeaseTimeToLiveResponse{TTL: 80})},
		"a granted TTL":  {ok(&pb.LeaseTimeToLiveResponse{GrantedTTL: 100}), ok(&pb.LeaseTimeToLiveResponse{GrantedTTL: 99})},
		"a broken chunk": {ok(&pb.RangeResponse{}), Answer{Msg: &pb.RangeResponse{}, Broken: []string{"x"}}},
	} {
		if compareAnswers(pair[0], pair[1]) == "" {
			t.Errorf("%s: not seen", name)
		}
	}
	if d := compareAnswers(ok(&pb.LeaseTimeToLiveResponse{TTL: 100}), ok(&pb.LeaseTimeToLiveResponse{TTL: 101})); d != "" {
		t.Errorf("a second's difference of TTL is reported: %s", d)
	}
}

func TestShrink(t *testing.T) {
	var ops []Op
	for i := range 100 {
		ops = append(ops, Op{Kind: Put, Member: i, Req: &pb.PutRequest{}})
	}
	has := func(ops []Op, m int) bool {
		for _, op := range ops {
			if op.Member == m {
				return true
			}
		}
		return false
	}
	got := Shrink(ops, time.Minute, func(ops []Op) bool { return has(ops, 17) && has(ops, 99) })
	if len(got) != 2 || !reflect.DeepEqual([]int{got[0].Member, got[1].Member}, []int{17, 99}) {
		t.Errorf("got %v", got)
	}
}
