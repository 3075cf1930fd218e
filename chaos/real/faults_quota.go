//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/chaos/history"
)

var pressureFaults = []*Fault{
	{Name: "quota", Row: 47, About: "the quota is reached; room is made, and the alarm cleared, by a member or by hand", Times: 2, Args: []string{fmt.Sprint("--quota-backend-bytes=", quotaBytes)}, Inject: quotaReached},
	{Name: "slow-watchers", Row: 49, About: "watches whose reader sleeps, and a thousand on one stream that are cancelled at once", Inject: slowWatchers},
}

const quotaBytes = 48 << 20

// quotaReached demands the refusal of writes on all members, through a change of
// the leader or not, that reads and deletes are served meanwhile, and that writes
// are again once there is room, without a restart.
func quotaReached(r *Run) error {
	const keys = 40
	full := false
	for i := 0; i < 3*quotaBytes/bigBytes && !full; i++ {
		full = r.mine.big(i%keys).Err == api.ErrNoSpace.Error()
	}
	if !full {
		return errors.New("O12: the quota is passed, and writes are let in")
	}
	if r.rand.IntN(2) == 0 {
		lead, err := r.awaitLeader(patience)
		if err == nil {
			err = lead.stop()
		}
		if err == nil {
			err = lead.start()
		}
		if err != nil {
			return err
		}
	}
	for _, m := range r.shuffled() {
		at := r.direct(m)
		op := at.do("etcdserverpb.KV/Range", &pb.RangeRequest{Key: []byte("key/001")})
		if op.Outcome == history.Refused {
			return fmt.Errorf("O12: %s refuses a read beyond the quota: %s", m.Name, op.Err)
		}
		err := within(patience, func() error {
			op := at.do("etcdserverpb.KV/Put", &pb.PutRequest{Key: []byte("key/001"), Value: r.mine.tag(0)})
			if op.Err != api.ErrNoSpace.Error() {
				return fmt.Errorf("O12: %s answers a write beyond the quota: %s %s", m.Name, op.Outcome, op.Err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return r.makeRoom(keys)
}

// direct asks one member as plainly as can be.
func (r *Run) direct(m *Member) *caller {
	return &caller{traffic: r.load, n: r.mine.n, at: slices.Index(r.members(), m)}
}

// makeRoom deletes the large values, compacts what all watches have seen, and lets
// members, or somebody by hand, rewrite their files and clear the alarms.
func (r *Run) makeRoom(keys int) error {
	for i := range keys {
		key := fmt.Appendf(nil, "~big/%d", i)
		op := r.mine.do("etcdserverpb.KV/DeleteRange", &pb.DeleteRangeRequest{Key: key})
		if op.Outcome == history.Refused {
			return fmt.Errorf("O12: a delete beyond the quota is refused: %s", op.Err)
		}
	}
	err := within(patience, func() error { // little changes while writes are refused
		st, err := r.members()[0].status()
		if err != nil {
			return err
		}
		rev := st.Header.Revision
		for _, w := range r.watchers {
			if w.at != nil {
				rev = min(rev, w.seen.Load())
			}
		}
		rev = min(rev, r.library.seen.Load())
		if rev < st.Header.Revision-keptRevisions {
			return fmt.Errorf("O3: watches stand at %d, the members at %d", rev, st.Header.Revision)
		}
		if op := r.mine.do("etcdserverpb.KV/Compact", &pb.CompactionRequest{Revision: rev, Physical: true}); op.Outcome != history.OK {
			return fmt.Errorf("compact: %s", op.Err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	byHand := r.rand.IntN(2) == 0
	return within(2*patience, func() error { // a member does not rewrite its file twice in a minute
		if byHand {
			if err := defragmentation(r); err != nil {
				return err
			}
			for _, m := range r.members() {
				r.mine.do("etcdserverpb.Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: m.ID, Alarm: pb.AlarmType_NOSPACE})
			}
		}
		all, err := r.statuses()
		for m, st := range all {
			if err == nil && (len(st.Errors) > 0 || st.DbSize > quotaBytes/10*9) {
				err = fmt.Errorf("O9: there is room, but %s has %d bytes and says %q", m.Name, st.DbSize, st.Errors)
			}
		}
		return err
	})
}

const (
	sleepers   = 10
	sleepBytes = 16 << 10 // of a value that they do not read
	stormed    = 1000     // watches on one stream
	spareBytes = 128 << 20
)

// slowWatchers demands that watches which nobody reads cost others nothing and a
// member little, and that they are told everything once they are read.
func slowWatchers(r *Run) error {
	m := r.some()
	before, err := m.memory()
	if err != nil {
		return err
	}
	conn, err := r.dial(m.endpoint())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var asleep []*sleeper
	for n := range sleepers {
		s, err := r.sleeper(ctx, conn, m, n)
		if err != nil {
			return err
		}
		asleep = append(asleep, s)
	}
	for range 200 {
		r.mine.put("slow", sleepBytes)
	}
	if err := cancelStorm(ctx, conn); err != nil {
		return err
	}
	if err := r.serves(); err != nil {
		return err
	}
	if after, err := m.memory(); err == nil && after > before+spareBytes {
		return fmt.Errorf("O10: %d sleeping watches cost %s %d MiB", sleepers, m.Name, (after-before)>>20)
	}
	st, err := m.status()
	if err != nil {
		return err
	}
	for _, s := range asleep {
		if err := s.wake(st.Header.Revision); err != nil {
			return err
		}
	}
	return nil
}

// sleeper is a watch that is not read for a while.
type sleeper struct {
	stream pb.Watch_WatchClient
	rec    *history.Watching
	end    context.CancelFunc
}

func (r *Run) sleeper(ctx context.Context, conn *grpc.ClientConn, m *Member, n int) (*sleeper, error) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	req := &pb.WatchCreateRequest{Key: []byte(watchedFrom), RangeEnd: []byte(watchedTo), PrevKv: n%2 == 0, Fragment: n%3 == 0}
	rec := r.rec.Watch(600+n, m.ID, req)
	return &sleeper{s, rec, cancel}, s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}})
}

// wake reads until a revision, within the time that everything has.
func (s *sleeper) wake(until int64) error {
	late := time.AfterFunc(patience, s.end)
	defer s.end()
	defer late.Stop()
	for rev := int64(0); rev < until; {
		resp, err := s.stream.Recv()
		if err != nil {
			s.rec.Ended(endOf(err))
			return fmt.Errorf("O3: a watch that was asleep stands at revision %d of %d: %w", rev, until, err)
		}
		s.rec.Told(resp)
		if n := len(resp.Events); n > 0 {
			rev = resp.Events[n-1].Kv.ModRevision
		}
	}
	s.rec.Ended(nil)
	return nil
}

// cancelStorm opens watches on one stream and cancels all, and demands an answer to
// each of both.
func cancelStorm(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return err
	}
	for id := range int64(stormed) {
		req := &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "storm/%d", id), WatchId: id + 1}
		if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}); err != nil {
			return err
		}
	}
	for id := range int64(stormed) {
		if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id + 1}}}); err != nil {
			return err
		}
	}
	created, cancelled := 0, 0
	for created < stormed || cancelled < stormed {
		resp, err := s.Recv()
		if err != nil {
			return fmt.Errorf("O3: of %d watches %d were created and %d cancelled: %w", stormed, created, cancelled, err)
		}
		if resp.Created {
			created++
		}
		if resp.Canceled {
			cancelled++
		}
	}
	return nil
}

// memory is what the member's process has in memory, in bytes.
func (m *Member) memory() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid()))
	if err != nil {
		return 0, err
	}
	return int64(number(string(text), "VmRSS:")) << 10, nil
}
