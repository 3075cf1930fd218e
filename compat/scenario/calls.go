package scenario

import (
	"context"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // a client that compresses
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// rawCalls: what RPCs look like that no client of etcd's sends: other services,
// bytes that are no message, fields of a later protocol, odd metadata, gzip.
func rawCalls(ctx context.Context, s *stage) {
	conn := s.conns[0]
	for _, path := range []string{"/etcdserverpb.KV/Borrow", "/nosuch.Service/Call", "/etcdserverpb.KV", "/etcdserverpb.KV/range"} {
		err := conn.Invoke(ctx, path, &pb.RangeRequest{}, &pb.RangeResponse{})
		s.say("%s: %s", path, outcome(err))
	}
	key := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "k")
	later := protowire.AppendVarint(protowire.AppendTag(key, 999, protowire.VarintType), 7)
	bodies := map[string][]byte{
		"nothing": {}, "a key": key, "a field of a later protocol": later, "half a message": key[:2], "an end of a group": {0x0c},
		"field 0": {0x00, 0x00}, "a key as a number": {0x08, 0x01}, "a number as a key": {0x1a, 0x01, 'x'}, "a long varint": []byte("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
	}
	for _, what := range sortedNames(bodies) {
		body := bodies[what]
		for _, path := range []string{"/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.KV/Compact"} {
			var answer []byte
			err := conn.Invoke(ctx, path, body, &answer, grpc.ForceCodec(raw{}))
			// Protobuf's own words differ between builds, on purpose.
			text, _, _ := strings.Cut(outcome(err), "unmarshal")
			s.lines = append(s.lines, path+" with "+what+": "+strings.ReplaceAll(text, "\u00a0", " "))
		}
	}
	data := map[string]string{
		"client-api-version": "3.7", "hasleader": "false", "token": "of nobody", "authorization": "Basic eDp5", "grpcgateway-accept": "x", "content-language": "de",
	}
	for _, name := range sortedNames(data) {
		value := data[name]
		_, err := s.kv(0).Range(metadata.AppendToOutgoingContext(ctx, name, value), &pb.RangeRequest{Key: []byte("k")})
		s.say("%s %s: %s", name, value, outcome(err))
	}
	_, err := s.kv(0).Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 100_000)}, grpc.UseCompressor("gzip"))
	s.say("gzip: %s", outcome(err))
}

// raw sends and receives encoded messages.
type raw struct{}

func (raw) Name() string                  { return "proto" }
func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
