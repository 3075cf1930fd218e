package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/keelson-io/keelson/mvcc/watchcheck"
)

// kind says what a record is. Numbers are never used again for something else.
type kind byte

const (
	kindName kind = iota + 1
	kindMeta
	kindOp
	kindEntry
	kindWatch
	kindAnswer
	kindWatchEnd
	kindState
	kindFault
	kindLeader
	kindProbe
	kindSample
	kindLogLine
	kindExit
	kindVerdict
	kindHealed
)

// handle makes the codec's settings: a struct is an array of its fields.
func handle() *codec.MsgpackHandle {
	h := &codec.MsgpackHandle{}
	h.StructToArray = true
	return h
}

// wireName gives a name its number.
type wireName struct {
	N    uint64
	Text string
}

// wireMessage is a message of etcd's API; no name: there is none.
type wireMessage struct {
	Name uint64
	Body []byte
}

type wireOp struct {
	ID, Client        int
	Member            uint64
	Endpoint, Method  uint64 // names
	Call, Return      time.Duration
	Outcome           Outcome
	Err               string
	Request, Response wireMessage
}

type wireEntry struct {
	Index, Term uint64
	Commands    []wireCommand
}

type wireCommand struct {
	ID                    uint64
	Request               wireMessage
	Leader                uint64
	Expired, Checkpointed []Lease
	At                    time.Duration
}

type wireWatch struct {
	ID, Client int
	Member     uint64
	Opened     time.Duration
	Request    watchcheck.Request
}

type wireAnswer struct {
	Watch int
	At    time.Duration
	Body  []byte // pb.WatchResponse
}

type wireWatchEnd struct {
	Watch int
	At    time.Duration
	Err   string
}

// answer is a delivery in etcd's words.
func answer(r watchcheck.Response) *pb.WatchResponse {
	return &pb.WatchResponse{
		Header: &pb.ResponseHeader{Revision: r.Revision}, Created: r.Created, Canceled: r.Canceled,
		CompactRevision: r.Compact, Fragment: r.Fragment, Events: r.Events,
	}
}

// Answer is a delivery in the words of the judges.
func Answer(r *pb.WatchResponse) watchcheck.Response {
	return watchcheck.Response{
		Revision: r.Header.GetRevision(), Created: r.Created, Canceled: r.Canceled, Compact: r.CompactRevision, Fragment: r.Fragment,
		Progress: !r.Created && !r.Canceled && len(r.Events) == 0, Events: r.Events,
	}
}

// newMessage makes an empty message of etcd's API.
func newMessage(name string) (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("message %q: %w", name, err)
	}
	return t.New().Interface(), nil
}

// apply puts a decoded record into the history.
func (h *History) apply(r any) error {
	switch r := r.(type) {
	case *Meta:
		h.Meta = *r
	case *Op:
		h.Ops = append(h.Ops, r)
		h.reach(r.Return)
	case *Entry:
		h.Log = append(h.Log, *r)
	case *State:
		h.States = append(h.States, *r)
	case *Fault:
		return h.fault(r)
	case *Leader:
		h.Leaders = append(h.Leaders, *r)
		h.reach(r.At)
	case *Probe:
		h.Probes = append(h.Probes, *r)
		h.reach(r.Return)
	case *Sample:
		h.Samples = append(h.Samples, *r)
		h.reach(r.At)
	case *LogLine:
		h.LogLines = append(h.LogLines, *r)
	case *Exit:
		h.Exits = append(h.Exits, *r)
		h.reach(r.At)
	case *Verdict:
		h.Verdicts = append(h.Verdicts, *r)
	case *Healed:
		h.Healed = r.At
		h.reach(r.At)
	}
	return nil
}

// Healed says that faults have ended for good.
type Healed struct{ At time.Duration }

func (h *History) reach(at time.Duration) { h.End = max(h.End, at) }

// fault takes a fault's begin, or its end, which repeats the begin.
func (h *History) fault(f *Fault) error {
	h.reach(max(f.Begin, f.End))
	for _, was := range h.Faults {
		if was.ID == f.ID {
			if was.End != 0 || was.Begin != f.Begin {
				return fmt.Errorf("fault %d is there twice", f.ID)
			}
			*was = *f
			return nil
		}
	}
	h.Faults = append(h.Faults, f)
	return nil
}

func (w *Watch) deliver(at time.Duration, r watchcheck.Response) {
	w.Responses = append(w.Responses, r)
	w.At = append(w.At, at)
}

// Keys are the keys of an answer.
func Keys(kvs []*mvccpb.KeyValue) []KV {
	out := make([]KV, len(kvs))
	for i, kv := range kvs {
		out[i] = KV{Key: string(kv.Key), Value: string(kv.Value), Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, Lease: kv.Lease}
	}
	return out
}

func hex(id uint64) string { return fmt.Sprintf("%x", id) }

// WatchRequest is what a watch asks for in the words of the judges.
func WatchRequest(r *pb.WatchCreateRequest) watchcheck.Request {
	return watchcheck.Request{
		Key: r.Key, End: r.RangeEnd, Start: r.StartRevision, PrevKV: r.PrevKv, Fragment: r.Fragment,
		NoPut:    slices.Contains(r.Filters, pb.WatchCreateRequest_NOPUT),
		NoDelete: slices.Contains(r.Filters, pb.WatchCreateRequest_NODELETE),
	}
}
