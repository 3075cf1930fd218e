package server

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestTranscripts plays the files of testdata/transcripts: each command is an
// RPC, its input the request in protobuf's text form; the output is the answer
// without ids and term. Run with -rewrite to record.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		s := newSolo(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return s.play(t, d)
		})
	})
}

// play runs one command. Several requests are separated by lines of "--".
func (s *solo) play(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	if d.Cmd == "advance" {
		step, err := time.ParseDuration(strings.TrimSpace(d.Input))
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		s.clock.Advance(step)
		return ""
	}
	var out strings.Builder
	for _, text := range strings.Split("\n"+d.Input, "\n--\n") {
		resp, err := s.call(t, d, text)
		if err != nil {
			fmt.Fprintf(&out, "%s: %s\n", status.Code(err), status.Convert(err).Message())
			continue
		}
		out.WriteString(dump(resp.ProtoReflect(), ""))
	}
	return out.String()
}

func (s *solo) call(t *testing.T, d *datadriven.TestData, text string) (proto.Message, error) {
	ctx := callContext(t)
	switch d.Cmd {
	case "range":
		return rpc(ctx, t, d, text, &pb.RangeRequest{}, s.kv.Range)
	case "put":
		return rpc(ctx, t, d, text, &pb.PutRequest{}, s.kv.Put)
	case "delete":
		return rpc(ctx, t, d, text, &pb.DeleteRangeRequest{}, s.kv.DeleteRange)
	case "txn":
		return rpc(ctx, t, d, text, &pb.TxnRequest{}, s.kv.Txn)
	case "compact":
		return rpc(ctx, t, d, text, &pb.CompactionRequest{}, s.kv.Compact)
	case "grant":
		return rpc(ctx, t, d, text, &pb.LeaseGrantRequest{}, s.lease.LeaseGrant)
	case "revoke":
		return rpc(ctx, t, d, text, &pb.LeaseRevokeRequest{}, s.lease.LeaseRevoke)
	case "time-to-live":
		return rpc(ctx, t, d, text, &pb.LeaseTimeToLiveRequest{}, s.lease.LeaseTimeToLive)
	case "leases":
		return rpc(ctx, t, d, text, &pb.LeaseLeasesRequest{}, s.lease.LeaseLeases)
	case "stream":
		r := &pb.RangeRequest{}
		if err := prototext.Unmarshal([]byte(text), r); err != nil {
			d.Fatalf(t, "%v", err)
		}
		resp, _, err := s.stream(ctx, t, r)
		return resp, err
	}
	d.Fatalf(t, "unknown command %q", d.Cmd)
	return nil, nil
}

func rpc[Q, R proto.Message](ctx context.Context, t *testing.T, d *datadriven.TestData, text string, req Q, method func(context.Context, Q, ...grpc.CallOption) (R, error)) (proto.Message, error) {
	t.Helper()
	if err := prototext.Unmarshal([]byte(text), req); err != nil {
		d.Fatalf(t, "%v", err)
	}
	return method(ctx, req)
}

// dump prints a message in the order of its declaration, one scalar line per
// message, ids and term left out.
func dump(m protoreflect.Message, indent string) string {
	var scalars []string
	var nested strings.Builder
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		switch f.Name() {
		case "cluster_id", "member_id", "raft_term":
			continue
		}
		one := func(v protoreflect.Value) {
			switch {
			case f.Message() != nil:
				fmt.Fprintf(&nested, "%s%s %s\n", indent, f.Name(), strings.TrimLeft(dump(v.Message(), indent+"  "), " "))
			case f.Kind() == protoreflect.BytesKind:
				scalars = append(scalars, fmt.Sprintf("%s=%q", f.Name(), v.Bytes()))
			default:
				scalars = append(scalars, fmt.Sprintf("%s=%v", f.Name(), v))
			}
		}
		if !f.IsList() {
			one(m.Get(f))
			continue
		}
		for j := range m.Get(f).List().Len() {
			one(m.Get(f).List().Get(j))
		}
	}
	line := indent + "{" + strings.Join(scalars, " ") + "}"
	if nested.Len() == 0 {
		if indent == "" {
			return line + "\n"
		}
		return line
	}
	body := strings.TrimRight(nested.String(), "\n")
	if indent == "" {
		return line + "\n" + body + "\n"
	}
	return line + "\n" + body
}
