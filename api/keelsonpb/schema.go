package keelsonpb

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// File is the path that the description has.
const File = "api/keelsonpb/pipeline.proto"

// Description is pipeline.proto as reflection tells it.
func Description() *descriptorpb.FileDescriptorProto {
	const (
		boolean = descriptorpb.FieldDescriptorProto_TYPE_BOOL
		number  = descriptorpb.FieldDescriptorProto_TYPE_UINT32
		large   = descriptorpb.FieldDescriptorProto_TYPE_UINT64
		text    = descriptorpb.FieldDescriptorProto_TYPE_STRING
		bytes   = descriptorpb.FieldDescriptorProto_TYPE_BYTES
	)
	calls := one("calls", fieldCalls, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE)
	calls.TypeName = proto.String(".keelsonpb.Call")
	ended := one("ended", fieldEnded, large)
	ended.Options = &descriptorpb.FieldOptions{Packed: proto.Bool(false)}
	answers := one("answers", fieldAnswers, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE)
	answers.TypeName = proto.String(".keelsonpb.Answer")
	for _, f := range []*descriptorpb.FieldDescriptorProto{calls, ended, answers} {
		f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	}
	return &descriptorpb.FileDescriptorProto{
		Name: proto.String(File), Package: proto.String("keelsonpb"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			message("Requests", calls, ended),
			message("Call", one("id", fieldCallID, large), one("method", fieldCallMethod, number),
				one("needs_leader", fieldCallNeedsLeader, boolean), one("request", fieldCallRequest, bytes)),
			message("Answers", answers, one("done", fieldDone, boolean), one("max_calls", fieldMaxCalls, number)),
			message("Answer", one("id", fieldAnswerID, large), one("code", fieldAnswerCode, number), one("message", fieldAnswerMessage, text),
				one("pushback_ms", fieldAnswerPushback, number), one("response", fieldAnswerResponse, bytes)),
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("Pipeline"),
			Method: []*descriptorpb.MethodDescriptorProto{{
				Name: proto.String(Stream), InputType: proto.String(".keelsonpb.Requests"), OutputType: proto.String(".keelsonpb.Answers"),
				ClientStreaming: proto.Bool(true), ServerStreaming: proto.Bool(true),
			}},
		}},
	}
}

func message(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
	return &descriptorpb.DescriptorProto{Name: proto.String(name), Field: fields}
}

func one(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: proto.String(name), Number: proto.Int32(number), Type: kind.Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
}
