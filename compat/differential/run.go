package differential

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/compat/cluster"
)

// syncEvery is how often watches are compared when no operation asks for it.
const syncEvery = 500

// Difference is one request two stores answered differently.
type Difference struct {
	Index       int // of the operation, from 0
	Op          Op
	Request     string // as sent to the left side
	Left, Right string
	Detail      string
}

func (d Difference) String() string {
	return fmt.Sprintf("operation %d, %s to member %d, stream %d\nrequest: %s\nleft:    %s\nright:   %s\n%s",
		d.Index, d.Op.Kind, d.Op.Member, d.Op.Stream, d.Request, d.Left, d.Right, d.Detail)
}

// Result is what a run did.
type Result struct {
	Ops         []Op // as far as they were sent
	Kinds       map[Kind]int
	Errors      map[string]int // error text → how often both sides gave it
	Events      int            // watch events compared
	Revision    int64
	Differences []Difference
}

// Config of a run. Both clusters must be fresh.
type Config struct {
	Left, Right *cluster.Cluster
	Auth        bool // the operations switch authentication on
	// Next gives operations until it says false.
	Next func() (Op, bool)
	// MaxDifferences ends the run; 1 is the sensible number when states may have
	// parted, more finds several at once.
	MaxDifferences int
	Progress       func(done int)
}

// errEnough ends a run that found all the differences it may.
var errEnough = errors.New("enough differences")

// runner belongs to one goroutine; sides[i] is used by one goroutine at a time.
type runner struct {
	cfg      Config
	sides    [2]*side
	state    state
	res      Result
	start    [watchStreams]int64 // the highest start revision of a watch
	op       Op                  // being done
	zeroHash bool                // the history was compacted at revision 0
	clean    int                 // operations since the last comparison of watches
}

// Run sends operations until there are no more, or enough differences.
func Run(ctx context.Context, cfg Config) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &runner{cfg: cfg, res: Result{Kinds: map[Kind]int{}, Errors: map[string]int{}}, state: state{revision: 1, passwords: map[string]string{}}}
	for i, c := range []*cluster.Cluster{cfg.Left, cfg.Right} {
		s, err := newSide(c, cfg.Auth)
		if err != nil {
			return r.res, err
		}
		defer s.close()
		r.sides[i] = s
	}
	for {
		op, ok := cfg.Next()
		if !ok {
			break
		}
		r.op = op
		r.res.Ops = append(r.res.Ops, op)
		r.res.Kinds[op.Kind]++
		if err := r.do(ctx, op); errors.Is(err, errEnough) {
			return r.res, nil
		} else if err != nil {
			return r.res, err
		}
		if cfg.Progress != nil {
			cfg.Progress(len(r.res.Ops))
		}
	}
	err := r.finish(ctx)
	r.res.Revision = r.state.revision
	if errors.Is(err, errEnough) {
		err = nil
	}
	return r.res, err
}

func (r *runner) do(ctx context.Context, op Op) error {
	r.clean++
	switch op.Kind {
	case Watch:
		return r.watch(ctx, op)
	case CancelWatch:
		return r.cancelWatch(ctx, op)
	case SyncWatch:
		return r.syncAll(ctx)
	case Compact:
		// A watch that has not caught up would be canceled or not by chance.
		if err := r.syncAll(ctx); err != nil {
			return err
		}
	}
	if r.clean >= syncEvery {
		if err := r.syncAll(ctx); err != nil {
			return err
		}
	}
	if r.compactionHash(op) {
		return nil
	}
	return r.request(ctx, op)
}

// request sends a unary request to both sides and compares.
func (r *runner) request(ctx context.Context, op Op) error {
	var a [2]Answer
	r.both(func(i int, s *side) { a[i] = s.do(ctx, op, r.state) })
	request := resolve(op.Req, r.state, r.sides[0].leases)
	if a[0].Code != 0 {
		r.res.Errors[a[0].Text]++
	} else {
		r.learn(request, a[0])
	}
	if diff := compareAnswers(a[0], a[1]); diff != "" {
		return r.differ(Difference{Op: op, Request: show(request), Left: a[0].String(), Right: a[1].String(), Detail: diff})
	}
	return nil
}

// learn keeps up with the revisions that symbols stand for.
func (r *runner) learn(request any, a Answer) {
	if h, ok := a.Msg.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		r.state.revision = max(r.state.revision, h.GetHeader().GetRevision())
	}
	switch m := request.(type) {
	case *pb.CompactionRequest:
		r.state.compacted = m.Revision
		r.zeroHash = r.zeroHash || m.Revision == 0
	case *pb.AuthEnableRequest:
		r.state.enabled = true
	case *pb.AuthUserAddRequest:
		r.state.passwords[m.Name] = m.Password
	case *pb.AuthUserChangePasswordRequest:
		r.state.passwords[m.Name] = m.Password
	}
}

// admin sends what the runner itself needs.
func (r *runner) admin() string {
	if r.state.enabled {
		return keeper
	}
	return ""
}

func (r *runner) watch(ctx context.Context, op Op) error {
	var control [2][]*pb.WatchResponse
	var errs [2]error
	req := resolve(op.Req, r.state, r.sides[0].leases).(*pb.WatchCreateRequest)
	r.start[op.Stream] = max(r.start[op.Stream], req.StartRevision)
	r.withoutPrevAtCompacted(req)
	r.both(func(i int, s *side) {
		var w *watchStream
		if w, errs[i] = s.stream(ctx, op.Stream, r.state); errs[i] == nil {
			control[i], errs[i] = w.create(req)
		}
	})
	return r.compareWatch(op, show(req), control, errs)
}

func (r *runner) cancelWatch(ctx context.Context, op Op) error {
	// Events on their way are lost by a cancel or not, by chance.
	if op.Stream != futureStream {
		if err := r.syncAll(ctx); err != nil {
			return err
		}
	}
	var control [2][]*pb.WatchResponse
	var errs [2]error
	id := op.Req.(*pb.WatchCancelRequest).WatchId
	r.both(func(i int, s *side) {
		var w *watchStream
		if w, errs[i] = s.stream(ctx, op.Stream, r.state); errs[i] == nil {
			control[i], errs[i] = w.cancel(id)
		}
	})
	return r.compareWatch(op, show(op.Req), control, errs)
}

func (r *runner) compareWatch(op Op, request string, control [2][]*pb.WatchResponse, errs [2]error) error {
	diff := compareControl(control[0], control[1])
	for i, err := range errs {
		if err != nil {
			diff += fmt.Sprintf("\n%s failed: %v", r.name(i), err)
		}
	}
	if diff == "" {
		return nil
	}
	return r.differ(Difference{Op: op, Request: request, Left: fmt.Sprint(control[0]), Right: fmt.Sprint(control[1]), Detail: diff})
}

// syncAll brings the watches of every stream to the current revision and compares
// what they were told.
func (r *runner) syncAll(ctx context.Context) error {
	r.clean = 0
	// A new revision first: see watchStream.sync. And as many as watches that start
	// a little in the future need.
	target := r.state.revision + 1
	for stream := range futureStream {
		target = max(target, r.start[stream])
	}
	for r.state.revision < target {
		op := Op{Kind: Put, User: r.admin(), Req: &pb.PutRequest{Key: []byte("zfiller")}}
		before := r.state.revision
		if err := r.request(ctx, op); err != nil {
			return err
		}
		if r.state.revision == before {
			return fmt.Errorf("a put did not make a new revision after %d", before)
		}
	}
	for stream := range futureStream {
		if err := r.syncStream(ctx, stream); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) syncStream(ctx context.Context, stream int) error {
	var control [2][]*pb.WatchResponse
	var errs [2]error
	var logs [2]map[int64][]watchEntry
	var broken [2][]string
	r.both(func(i int, s *side) {
		var w *watchStream
		if w, errs[i] = s.stream(ctx, stream, r.state); errs[i] != nil {
			return
		}
		control[i], errs[i] = w.sync(r.state.revision)
		logs[i], broken[i] = w.takeLogs()
		s.maskEntries(logs[i])
	})
	op := Op{Kind: SyncWatch, Stream: stream, Req: &pb.WatchProgressRequest{}}
	if err := r.compareWatch(op, fmt.Sprintf("(bring stream %d to revision %d)", stream, r.state.revision), control, errs); err != nil {
		return err
	}
	for i := range broken {
		for _, rule := range broken[i] {
			if err := r.differ(Difference{Op: op, Detail: r.name(i) + " breaks a rule: " + rule}); err != nil {
				return err
			}
		}
	}
	for _, entries := range logs[0] {
		r.res.Events += len(entries)
	}
	if diff := compareLogs(logs[0], logs[1]); diff != "" {
		return r.differ(Difference{Op: op, Detail: diff})
	}
	return nil
}

// maskEntries replaces server-chosen lease ids in events.
func (s *side) maskEntries(logs map[int64][]watchEntry) {
	for _, entries := range logs {
		for _, e := range entries {
			if e.event != nil {
				s.answer(e.event, nil)
			}
		}
	}
}

// finish compares everything that is left: all keys at every tenth readable
// revision, all leases, all watches.
func (r *runner) finish(ctx context.Context) error {
	if err := r.syncAll(ctx); err != nil {
		return err
	}
	all := func(rev int64) Op {
		return Op{Kind: Range, User: r.admin(), Req: &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev}}
	}
	ops := []Op{all(0), {Kind: Leases, User: r.admin(), Req: &pb.LeaseLeasesRequest{}}}
	for rev := max(1, r.state.compacted); rev <= r.state.revision; rev += max(10, (r.state.revision-r.state.compacted)/200) {
		ops = append(ops, all(rev))
	}
	for id := range int64(20) {
		ops = append(ops, Op{Kind: TimeToLive, User: r.admin(), Req: &pb.LeaseTimeToLiveRequest{ID: id + 1, Keys: true}})
	}
	for _, op := range ops {
		r.op = op
		if err := r.request(ctx, op); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) both(f func(i int, s *side)) {
	var wg sync.WaitGroup
	wg.Go(func() { f(1, r.sides[1]) })
	f(0, r.sides[0])
	wg.Wait()
}

func (r *runner) name(i int) string {
	return [2]string{"left", "right"}[i] + " (" + r.sides[i].cluster.System.Name + ")"
}

func (r *runner) differ(d Difference) error {
	d.Index = len(r.res.Ops) - 1
	r.res.Differences = append(r.res.Differences, d)
	if len(r.res.Differences) >= max(1, r.cfg.MaxDifferences) {
		return errEnough
	}
	return nil
}
