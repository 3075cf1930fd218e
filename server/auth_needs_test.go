package server

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
)

// TestEveryRPCHasItsNeed holds the table against etcd's protocol and against what
// is served: an RPC that nobody thought about fails here, and is refused.
func TestEveryRPCHasItsNeed(t *testing.T) {
	known := map[string]bool{}
	services := pb.File_rpc_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			known["/"+string(services.Get(i).FullName())+"/"+string(methods.Get(j).Name())] = true
		}
	}
	if len(known) < 40 {
		t.Fatalf("the protocol has %d RPCs only", len(known))
	}
	s := newSolo(t)
	for service, info := range s.services().GetServiceInfo() {
		for _, m := range info.Methods {
			known["/"+service+"/"+m.Name] = true
		}
	}
	for _, method := range slices.Sorted(maps.Keys(known)) {
		if rpcNeeds[method] == 0 {
			t.Errorf("%s names no need", method)
		}
	}
	served := map[string]grpc.ServiceInfo{}
	maps.Copy(served, s.services().GetServiceInfo())
	for method := range rpcNeeds {
		service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
		if _, ok := served[service]; ok && !known[method] {
			t.Errorf("the table lists %s, which does not exist", method)
		}
	}
}

// TestUnknownRPCIsRefused: to everybody, root included.
func TestUnknownRPCIsRefused(t *testing.T) {
	s := newSecured(t)
	ctx := certificateContext("", "token", login(callContext(t), t, s.auth, "root"))
	if err := s.admitRPC(ctx, "/etcdserverpb.KV/Borrow", nil); err != error(api.ErrPermissionDenied) {
		t.Errorf("got %v", err)
	}
	g := guard{state: s.Server.auth.now.Load(), who: auth.Principal{Name: "root", Revision: 1 << 40}}
	if err := g.admitCommand(255); err != error(api.ErrPermissionDenied) {
		t.Errorf("an unknown command: %v", err)
	}
}

// TestEveryCommandHasItsNeed finds the kinds of commands in the source.
func TestEveryCommandHasItsNeed(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if ok && len(spec.Values) == 1 && strings.HasPrefix(spec.Names[0].Name, "command") {
				if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
					kinds[lit.Value] = spec.Names[0].Name
				}
			}
			return true
		})
	}
	if len(kinds) < 20 {
		t.Fatalf("found %d kinds of commands", len(kinds))
	}
	for value, name := range kinds {
		var kind uint8
		if _, err := fmt.Sscan(value, &kind); err != nil {
			t.Fatal(err)
		}
		if commandNeeds[kind] == 0 {
			t.Errorf("%s (%s) names no need", name, value)
		}
	}
}

// accessOf says for each field of the requests that touch keys what it makes the
// request do. A field that is not here was not thought about.
var accessOf = map[string]string{
	"RangeRequest.key": "read", "RangeRequest.range_end": "read",
	"PutRequest.key": "write", "PutRequest.lease": "use the lease", "PutRequest.prev_kv": "read",
	"PutRequest.ignore_value": "nothing more: the value is kept, not shown",
	"PutRequest.ignore_lease": "nothing more: the key stays with its lease",
	"PutRequest.value":        "nothing",
	"DeleteRangeRequest.key":  "write", "DeleteRangeRequest.range_end": "write", "DeleteRangeRequest.prev_kv": "read",
	"TxnRequest.compare": "those of Compare", "TxnRequest.success": "those of RequestOp", "TxnRequest.failure": "those of RequestOp",
	"RequestOp.request_range": "those of RangeRequest", "RequestOp.request_put": "those of PutRequest",
	"RequestOp.request_delete_range": "those of DeleteRangeRequest", "RequestOp.request_txn": "those of TxnRequest",
	"Compare.key": "read", "Compare.range_end": "read",
	"Compare.result": "nothing", "Compare.target": "nothing", "Compare.version": "nothing", "Compare.create_revision": "nothing",
	"Compare.mod_revision": "nothing", "Compare.value": "nothing", "Compare.lease": "nothing",
	"LeaseGrantRequest.ID": "nothing", "LeaseGrantRequest.TTL": "nothing", "LeaseRevokeRequest.ID": "use the lease",
	"LeaseKeepAliveRequest.ID": "use the lease", "LeaseTimeToLiveRequest.ID": "nothing", "LeaseTimeToLiveRequest.keys": "read the keys it shows",
	"WatchCreateRequest.key": "read", "WatchCreateRequest.range_end": "read", "WatchCreateRequest.prev_kv": "read, as the range is",
}

func TestEveryFieldHasItsAccess(t *testing.T) {
	// What shapes an answer without touching other keys.
	harmless := strings.Fields(`RangeRequest.limit RangeRequest.revision RangeRequest.sort_order RangeRequest.sort_target
		RangeRequest.serializable RangeRequest.keys_only RangeRequest.count_only RangeRequest.min_mod_revision RangeRequest.max_mod_revision
		RangeRequest.min_create_revision RangeRequest.max_create_revision WatchCreateRequest.start_revision WatchCreateRequest.progress_notify
		WatchCreateRequest.filters WatchCreateRequest.watch_id WatchCreateRequest.fragment`)
	messages := []protoreflect.ProtoMessage{
		&pb.RangeRequest{}, &pb.PutRequest{}, &pb.DeleteRangeRequest{}, &pb.TxnRequest{}, &pb.RequestOp{}, &pb.Compare{},
		&pb.LeaseGrantRequest{}, &pb.LeaseRevokeRequest{}, &pb.LeaseKeepAliveRequest{}, &pb.LeaseTimeToLiveRequest{}, &pb.LeaseLeasesRequest{},
		&pb.WatchCreateRequest{},
	}
	seen := 0
	for _, m := range messages {
		d := m.ProtoReflect().Descriptor()
		for i := range d.Fields().Len() {
			name := string(d.Name()) + "." + string(d.Fields().Get(i).Name())
			if accessOf[name] == "" && !slices.Contains(harmless, name) {
				t.Errorf("%s: nobody has said what it makes the request do", name)
			}
			seen++
		}
	}
	if seen != len(accessOf)+len(harmless) {
		t.Errorf("the protocol has %d fields, %d are known", seen, len(accessOf)+len(harmless))
	}
}

// TestAccesses writes down what requests do.
func TestAccesses(t *testing.T) {
	inner := &txnRequest{compares: []compare{{key: []byte("cmp"), end: []byte("cmz")}}, success: []op{{put: &putRequest{key: []byte("deep"), lease: 3, prevKV: true}}}}
	outer := &txnRequest{
		success: []op{{rng: &rangeRequest{key: []byte("r"), end: []byte{0}}}, {txn: inner}},
		failure: []op{{del: &deleteRequest{key: []byte("d"), end: []byte("e"), prevKV: true}}},
	}
	var got []string
	names := map[accessKind]string{readKeys: "read", writeKeys: "write", useLease: "use lease", seeLease: "see lease"}
	note := func(a access) error {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %q %q %d", names[a.kind], a.key, a.end, a.lease)))
		return nil
	}
	for _, r := range []accessor{
		outer, &putRequest{key: []byte("p"), ignoreValue: true, ignoreLease: true}, leaseAccess{useLease, 9}, leaseList{1, 2}, leaseList{},
		watchRange{[]byte("w"), []byte{0}},
	} {
		if err := r.accesses(note); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`read "r" "\x00" 0`, `read "cmp" "cmz" 0`, `write "deep" "" 0`, `use lease "" "" 3`, `read "deep" "" 0`,
		`write "d" "e" 0`, `read "d" "e" 0`,
		`write "p" "" 0`, `use lease "" "" 9`, `see lease "" "" 1`, `see lease "" "" 2`, `see lease "" "" 0`, `read "w" "\x00" 0`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := (&txnRequest{success: []op{{}}}).accesses(note); err != error(api.ErrPermissionDenied) {
		t.Errorf("an operation that nobody knows: %v", err)
	}
}
