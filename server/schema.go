package server

import (
	"fmt"

	"google.golang.org/grpc"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api/keelsonpb"
)

// The protobuf description of the Lock and Election services, for reflection
// and for the JSON gateway. It is etcd's, in names and numbers, plus our
// LockResponse.token and our own services; it stays out of the global registry, where etcd's own
// description may be.

// The files' names are those that etcd's generated code registers.
const (
	lockFile     = "server/etcdserver/api/v3lock/v3lockpb/v3lock.proto"
	electionFile = "server/etcdserver/api/v3election/v3electionpb/v3election.proto"
)

const (
	headerType = ".etcdserverpb.ResponseHeader"
	kvType     = ".mvccpb.KeyValue"
	leaderType = ".v3electionpb.LeaderKey"
)

// schema finds descriptions: first ours, then the registered ones.
type schema struct{ own *protoregistry.Files }

func newSchema() *schema {
	s := &schema{own: &protoregistry.Files{}}
	rpc, kv := pb.File_rpc_proto.Path(), mvccpb.File_kv_proto.Path()
	s.add(lockFile, "v3lockpb", []string{rpc}, []*descriptorpb.DescriptorProto{
		messageOf("LockRequest", bytesField("name", fieldLockName), int64Field("lease", fieldLockLease)),
		messageOf("LockResponse", messageField("header", fieldHeader, headerType), bytesField("key", fieldLockedKey),
			int64Field("token", fieldLockedToken)),
		messageOf("UnlockRequest", bytesField("key", fieldUnlockKey)),
		messageOf("UnlockResponse", messageField("header", fieldHeader, headerType)),
	}, &descriptorpb.ServiceDescriptorProto{Name: proto.String("Lock"), Method: []*descriptorpb.MethodDescriptorProto{
		method(".v3lockpb.", "Lock", "Lock"), method(".v3lockpb.", "Unlock", "Unlock"),
	}})
	observe := method(".v3electionpb.", "Observe", "Leader")
	observe.ServerStreaming = proto.Bool(true)
	s.add(electionFile, "v3electionpb", []string{rpc, kv}, []*descriptorpb.DescriptorProto{
		messageOf("CampaignRequest", bytesField("name", fieldElectionName), int64Field("lease", fieldCampaignID), bytesField("value", fieldCampaignWith)),
		messageOf("CampaignResponse", messageField("header", fieldHeader, headerType), messageField("leader", fieldElected, leaderType)),
		messageOf("LeaderKey", bytesField("name", fieldKeyName), bytesField("key", fieldKeyKey), int64Field("rev", fieldKeyRev), int64Field("lease", fieldKeyLease)),
		messageOf("LeaderRequest", bytesField("name", fieldElectionName)),
		messageOf("LeaderResponse", messageField("header", fieldHeader, headerType), messageField("kv", fieldLeaderKV, kvType)),
		messageOf("ResignRequest", messageField("leader", fieldHeldBy, leaderType)),
		messageOf("ResignResponse", messageField("header", fieldHeader, headerType)),
		messageOf("ProclaimRequest", messageField("leader", fieldHeldBy, leaderType), bytesField("value", fieldProclaimWith)),
		messageOf("ProclaimResponse", messageField("header", fieldHeader, headerType)),
	}, &descriptorpb.ServiceDescriptorProto{Name: proto.String("Election"), Method: []*descriptorpb.MethodDescriptorProto{
		method(".v3electionpb.", "Campaign", "Campaign"), method(".v3electionpb.", "Proclaim", "Proclaim"),
		method(".v3electionpb.", "Leader", "Leader"), observe, method(".v3electionpb.", "Resign", "Resign"),
	}})
	s.addFile(keelsonpb.Description())
	return s
}

func (s *schema) add(path, pkg string, needs []string, messages []*descriptorpb.DescriptorProto, service *descriptorpb.ServiceDescriptorProto) {
	s.addFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String(path), Package: proto.String(pkg), Syntax: proto.String("proto3"),
		Dependency: needs, MessageType: messages, Service: []*descriptorpb.ServiceDescriptorProto{service},
	})
}

func (s *schema) addFile(description *descriptorpb.FileDescriptorProto) {
	file, err := protodesc.NewFile(description, protoregistry.GlobalFiles)
	if err == nil {
		err = s.own.RegisterFile(file)
	}
	if err != nil {
		panic(fmt.Sprintf("schema: %s: %v", description.GetName(), err)) // constants only
	}
}

// FindFileByPath implements protodesc.Resolver.
func (s *schema) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if f, err := s.own.FindFileByPath(path); err == nil {
		return f, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (s *schema) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := s.own.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// messageType finds one of our own messages.
func (s *schema) messageType(name protoreflect.FullName) protoreflect.MessageDescriptor {
	d, err := s.own.FindDescriptorByName(name)
	if err != nil {
		panic(fmt.Sprintf("schema: %s: %v", name, err)) // constants only
	}
	return d.(protoreflect.MessageDescriptor)
}

// register serves the description to tools such as grpcurl. It tells what the
// published protocol tells, and nothing about the member's data.
func (s *schema) register(g *grpc.Server) {
	opts := reflection.ServerOptions{Services: g, DescriptorResolver: s}
	reflectionpb.RegisterServerReflectionServer(g, reflection.NewServerV1(opts))
	reflectionalphapb.RegisterServerReflectionServer(g, reflection.NewServer(opts))
}

func messageOf(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
	return &descriptorpb.DescriptorProto{Name: proto.String(name), Field: fields}
}

func bytesField(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return fieldOf(name, number, descriptorpb.FieldDescriptorProto_TYPE_BYTES)
}

func int64Field(name string, number int32) *descriptorpb.FieldDescriptorProto {
	return fieldOf(name, number, descriptorpb.FieldDescriptorProto_TYPE_INT64)
}

func messageField(name string, number int32, of string) *descriptorpb.FieldDescriptorProto {
	f := fieldOf(name, number, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE)
	f.TypeName = proto.String(of)
	return f
}

func fieldOf(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
}

// method describes an RPC whose messages are named after of.
func method(pkg, name, of string) *descriptorpb.MethodDescriptorProto {
	return &descriptorpb.MethodDescriptorProto{
		Name: proto.String(name), InputType: proto.String(pkg + of + "Request"), OutputType: proto.String(pkg + of + "Response"),
	}
}
