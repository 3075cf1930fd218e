package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// mark fills every text of a message with its field's name.
func mark(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
		case f.Kind() == protoreflect.MessageKind && depth > 0:
			if f.IsList() {
				list := m.Mutable(f).List()
				e := list.NewElement()
				mark(e.Message(), depth-1)
				list.Append(e)
			} else {
				mark(m.Mutable(f).Message(), depth-1)
			}
		case f.Kind() == protoreflect.StringKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfString("<"+string(f.Name())+">"))
		case f.Kind() == protoreflect.BytesKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfBytes([]byte("<"+string(f.Name())+">")))
		}
	}
}

// TestNothingSecretIsDescribed makes every request of etcd's protocol with a mark
// in each of its fields, and looks which of them a log would show.
func TestNothingSecretIsDescribed(t *testing.T) {
	may := []string{"key", "range_end", "name", "user", "role", "version"}
	decoded := map[string]func() request{
		"RangeRequest": func() request { return &rangeRequest{} }, "PutRequest": func() request { return &putRequest{} },
		"DeleteRangeRequest": func() request { return &deleteRequest{} }, "TxnRequest": func() request { return &txnRequest{} },
		"CompactionRequest": func() request { return &compactRequest{} }, "LeaseGrantRequest": func() request { return &grantRequest{} },
		"LeaseRevokeRequest": func() request { return &revokeRequest{} }, "LeaseTimeToLiveRequest": func() request { return &ttlRequest{} },
		"AuthUserAddRequest":            func() request { return &message[pb.AuthUserAddRequest]{} },
		"AuthUserChangePasswordRequest": func() request { return &message[pb.AuthUserChangePasswordRequest]{} },
		"AuthenticateRequest":           func() request { return &message[pb.AuthenticateRequest]{} },
	}
	shown := map[string]bool{}
	services := pb.File_rpc_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			input := methods.Get(j).Input()
			kind, err := protoregistry.GlobalTypes.FindMessageByName(input.FullName())
			if err != nil {
				t.Fatal(err)
			}
			m := kind.New()
			mark(m, 4)
			var req any = m.Interface()
			if fresh := decoded[string(input.Name())]; fresh != nil {
				r := fresh()
				if err := r.decode(encode(t, m.Interface())); err != nil {
					t.Fatal(err)
				}
				req = r
			}
			text := fmt.Sprint(describe(req))
			for part := range strings.SplitSeq(text, "<") {
				field, _, found := strings.Cut(part, ">")
				if !found {
					continue
				}
				shown[field] = true
				if !slices.Contains(may, field) {
					t.Errorf("%s shows its field %s: %s", input.Name(), field, text)
				}
			}
		}
	}
	for _, field := range may {
		if !shown[field] {
			t.Errorf("no request shows a %s: the test sees nothing", field)
		}
	}
}
