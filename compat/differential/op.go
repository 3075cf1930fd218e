package differential

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Kind is what an Op does.
type Kind string

const (
	Range       Kind = "range"
	RangeStream Kind = "rangestream"
	Put         Kind = "put"
	Delete      Kind = "delete"
	Txn         Kind = "txn"
	Compact     Kind = "compact"
	Grant       Kind = "grant"
	Revoke      Kind = "revoke"
	KeepAlive   Kind = "keepalive"
	TimeToLive  Kind = "timetolive"
	Leases      Kind = "leases"
	Watch       Kind = "watch"
	CancelWatch Kind = "cancelwatch"
	// SyncWatch waits until all watches of all streams have what they are owed,
	// then compares it.
	SyncWatch Kind = "syncwatch"
)

// Op is one step. Its request may hold symbols.
type Op struct {
	Kind   Kind
	Member int // which member gets it, modulo their number
	Stream int // of the watch operations
	Req    proto.Message
}

func newRequest(k Kind) (proto.Message, error) {
	switch k {
	case Range, RangeStream:
		return &pb.RangeRequest{}, nil
	case Put:
		return &pb.PutRequest{}, nil
	case Delete:
		return &pb.DeleteRangeRequest{}, nil
	case Txn:
		return &pb.TxnRequest{}, nil
	case Compact:
		return &pb.CompactionRequest{}, nil
	case Grant:
		return &pb.LeaseGrantRequest{}, nil
	case Revoke:
		return &pb.LeaseRevokeRequest{}, nil
	case KeepAlive:
		return &pb.LeaseKeepAliveRequest{}, nil
	case TimeToLive:
		return &pb.LeaseTimeToLiveRequest{}, nil
	case Leases:
		return &pb.LeaseLeasesRequest{}, nil
	case Watch:
		return &pb.WatchCreateRequest{}, nil
	case CancelWatch:
		return &pb.WatchCancelRequest{}, nil
	case SyncWatch:
		return &pb.WatchProgressRequest{}, nil
	}
	return nil, fmt.Errorf("unknown kind %q", k)
}

type opJSON struct {
	Kind   Kind            `json:"kind"`
	Member int             `json:"member,omitempty"`
	Stream int             `json:"stream,omitempty"`
	Req    json.RawMessage `json:"req"`
}

// MarshalJSON writes the op as one line of a replay file.
func (o Op) MarshalJSON() ([]byte, error) {
	req, err := protojson.Marshal(o.Req)
	if err != nil {
		return nil, err
	}
	return json.Marshal(opJSON{o.Kind, o.Member, o.Stream, req})
}

// UnmarshalJSON reads it back.
func (o *Op) UnmarshalJSON(data []byte) error {
	var j opJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	req, err := newRequest(j.Kind)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(j.Req, req); err != nil {
		return err
	}
	*o = Op{j.Kind, j.Member, j.Stream, req}
	return nil
}

// WriteOps writes a replay file: one op a line.
func WriteOps(w io.Writer, ops []Op) error {
	enc := json.NewEncoder(w)
	for _, op := range ops {
		if err := enc.Encode(op); err != nil {
			return err
		}
	}
	return nil
}

// ReadOps reads a replay file.
func ReadOps(r io.Reader) ([]Op, error) {
	var ops []Op
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var op Op
		if err := dec.Decode(&op); err == io.EOF {
			return ops, nil
		} else if err != nil {
			return nil, fmt.Errorf("op %d: %w", len(ops), err)
		}
		ops = append(ops, op)
	}
}
