package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/compat/cluster"
)

// scenario is one thing played against a fresh cluster.
type scenario struct {
	name    string
	members int
	flags   []string
	play    func(ctx context.Context, s *stage)
}

// stage is a running cluster and what was seen.
type stage struct {
	cluster *cluster.Cluster
	conns   []*grpc.ClientConn
	lines   []string
}

func (s *stage) say(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *stage) kv(i int) pb.KVClient { return pb.NewKVClient(s.conns[i]) }

// play starts a cluster, plays the scenario and gives its lines.
func play(ctx context.Context, sys cluster.System, sc scenario, dir string) ([]string, error) {
	c, err := cluster.Start(ctx, sys, cluster.Options{Members: sc.members, Dir: dir, Args: sc.flags})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s := &stage{cluster: c}
	for _, m := range c.Members {
		conn, err := m.Dial()
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		s.conns = append(s.conns, conn)
	}
	if err := settled(ctx, c); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	sc.play(ctx, s)
	return s.lines, ctx.Err()
}

// settled waits until the members' storage has the format of their version: etcd
// begins with none or an older one, and changes it once the members have agreed.
func settled(ctx context.Context, c *cluster.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, m := range c.Members {
		for {
			st, err := m.Status(ctx)
			if minor, _, ok := strings.Cut(st.GetStorageVersion(), ".0"); err == nil && ok && strings.HasPrefix(st.GetVersion(), minor+".") {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("the storage of %s does not reach the format of its version: %v, %w", m.Name, st, errors.Join(err, ctx.Err()))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// outcome shows an error by code and text, or that there is none.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	st := status.Convert(err)
	return fmt.Sprintf("%v %q", st.Code(), st.Message())
}

// requireLeader asks for a stream that is cut when there is no leader.
func requireLeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
}

// watch opens a stream with one watch on it and gives responses as they come,
// until the stream ends.
func (s *stage) watch(ctx context.Context, member int, req *pb.WatchCreateRequest) (<-chan *pb.WatchResponse, <-chan error) {
	out, ended := make(chan *pb.WatchResponse, 100), make(chan error, 1)
	stream, err := pb.NewWatchClient(s.conns[member]).Watch(ctx)
	if err == nil {
		err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}})
	}
	if err != nil {
		ended <- err
		return out, ended
	}
	go func() { // ends with the stream
		for {
			resp, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			out <- resp
		}
	}()
	return out, ended
}

// next waits for a response, or says what happened instead.
func (s *stage) next(what string, out <-chan *pb.WatchResponse, ended <-chan error, timeout time.Duration) *pb.WatchResponse {
	select {
	case resp := <-out:
		return resp
	case err := <-ended:
		s.say("%s: the stream ended: %s", what, outcome(err))
	case <-time.After(timeout):
		s.say("%s: nothing within %v", what, timeout)
	}
	return nil
}

var digits = regexp.MustCompile(`\d{6,}|[0-9a-f]{12,16}`)

// masked takes ids out of a text.
func masked(s string) string { return digits.ReplaceAllString(s, "ID") }

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
