package campaign

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// Event is one change, without what may not be compared.
type Event struct {
	Key      string
	Value    string
	Delete   bool
	Revision int64
	Create   int64
	Version  int64
}

func newEvent(ev *mvccpb.Event) Event {
	return Event{string(ev.Kv.Key), string(ev.Kv.Value), ev.Type == mvccpb.Event_DELETE,
		ev.Kv.ModRevision, ev.Kv.CreateRevision, ev.Kv.Version}
}

// readHistory reads every change a member knows, up to the change of key last.
func readHistory(ctx context.Context, m *cluster.Member, last string) ([]Event, error) {
	conn, err := m.Dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1}}})
	if err != nil {
		return nil, err
	}
	var events []Event
	for {
		resp, err := stream.Recv()
		if err != nil {
			return events, fmt.Errorf("history of %s, after %d events: %w", m.Name, len(events), err)
		}
		if resp.Canceled {
			return events, fmt.Errorf("history of %s was canceled: %v", m.Name, resp)
		}
		for _, ev := range resp.Events {
			events = append(events, newEvent(ev))
			if string(ev.Kv.Key) == last {
				return events, nil
			}
		}
	}
}
