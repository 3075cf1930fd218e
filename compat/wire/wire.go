package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Method is one RPC.
type Method struct {
	Name    string // "KV/Range"
	path    string // "/etcdserverpb.KV/Range"
	in, out protoreflect.MessageType
	// streams: several answers. twoWay: and several requests. endless: they go on until the caller leaves, so
	// the first one is what a call waits for.
	streams, twoWay, endless bool
}

// Request makes an empty request.
func (m Method) Request() proto.Message { return m.in.New().Interface() }

// Methods lists every RPC of etcd's protocol, Lock and Election included.
func Methods() []Method {
	var out []Method
	for _, file := range []protoreflect.FileDescriptor{pb.File_rpc_proto, v3lockpb.File_v3lock_proto, epb.File_v3election_proto} {
		services := file.Services()
		for i := range services.Len() {
			methods := services.Get(i).Methods()
			for j := range methods.Len() {
				out = append(out, method(services.Get(i), methods.Get(j)))
			}
		}
	}
	return out
}

func method(s protoreflect.ServiceDescriptor, d protoreflect.MethodDescriptor) Method {
	find := func(m protoreflect.MessageDescriptor) protoreflect.MessageType {
		t, err := protoregistry.GlobalTypes.FindMessageByName(m.FullName())
		if err != nil {
			panic(err) // the packages above register them
		}
		return t
	}
	m := Method{
		Name: string(s.Name() + "/" + d.Name()), path: "/" + string(s.FullName()) + "/" + string(d.Name()),
		in: find(d.Input()), out: find(d.Output()), streams: d.IsStreamingServer(),
	}
	m.twoWay = d.IsStreamingClient()
	m.endless = m.twoWay || m.Name == "Election/Observe"
	return m
}

var byName = func() map[string]Method {
	all := map[string]Method{}
	for _, m := range Methods() {
		all[m.Name] = m
	}
	return all
}()

// Lookup finds an RPC by service and name, "KV/Range".
func Lookup(name string) (Method, error) {
	m, ok := byName[name]
	if !ok {
		return m, fmt.Errorf("etcd's protocol has no RPC %q", name)
	}
	return m, nil
}

// Call sends one request. It gives the answer, all answers of a stream that ends
// by itself, or the first of one that does not.
func (m Method) Call(ctx context.Context, conn grpc.ClientConnInterface, req proto.Message) ([]proto.Message, error) {
	if !m.streams {
		answer := m.out.New().Interface()
		if err := conn.Invoke(ctx, m.path, req, answer); err != nil {
			return nil, err
		}
		return []proto.Message{answer}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.twoWay}, m.path)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) { // Recv says why
		return nil, err
	}
	var answers []proto.Message
	for {
		answer := m.out.New().Interface()
		switch err := stream.RecvMsg(answer); {
		case errors.Is(err, io.EOF):
			return answers, nil
		case err != nil:
			return answers, err
		}
		answers = append(answers, answer)
		if m.endless {
			return answers, nil
		}
	}
}

// WithToken makes calls carry the token of a login.
func WithToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "token", token)
}

// Mask takes out of an answer's header, and of what the answer says of members
// and of their disks, what is one cluster's or one member's own.
func Mask(answer proto.Message) {
	if h, ok := answer.(interface{ GetHeader() *pb.ResponseHeader }); ok && h.GetHeader() != nil {
		h.GetHeader().ClusterId, h.GetHeader().MemberId, h.GetHeader().RaftTerm = 0, 0, 0
	}
	switch m := answer.(type) {
	case *pb.RangeStreamResponse:
		Mask(m.GetRangeResponse())
	case *pb.StatusResponse:
		m.StorageVersion = "" // follows some seconds after the start
		m.DbSize, m.DbSizeInUse, m.RaftIndex, m.RaftAppliedIndex, m.RaftTerm, m.Leader = 0, 0, 0, 0, 0, min(m.Leader, 1)
	case *pb.MemberListResponse:
		for _, member := range m.Members {
			member.ID = 0
			member.PeerURLs, member.ClientURLs = maskURLs(member.PeerURLs), maskURLs(member.ClientURLs)
		}
		slices.SortFunc(m.Members, func(a, b *pb.Member) int { return strings.Compare(a.Name, b.Name) }) // by id so far
	case *pb.AuthenticateResponse:
		m.Token = masked(m.Token)
	case *pb.HashResponse:
		m.Hash = 0
	case *pb.HashKVResponse: // leases chosen by servers are part of what is hashed
		m.Hash = 0
	case *v3lockpb.LockResponse: // kvd adds a fencing token, which etcd's clients skip
		m.ProtoReflect().SetUnknown(nil)
	}
}

// masked says only whether there is something.
func masked(s string) string {
	if s == "" {
		return ""
	}
	return "*"
}

func maskURLs(urls []string) (out []string) {
	for _, u := range urls {
		scheme, _, _ := strings.Cut(u, ":")
		out = append(out, scheme)
	}
	return out
}
