package history

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Recorder is a Writer for a run that goes on: it has the clock, gives numbers,
// and knows what is under way. It may be used by many goroutines.
type Recorder struct {
	*Writer
	began   time.Time
	ops     atomic.Int64
	watches atomic.Int64
	faults  atomic.Int64
	mu      struct {
		sync.Mutex
		open map[*Call]bool
	}
}

// NewRecorder starts the clock.
func NewRecorder(w *Writer) *Recorder {
	r := &Recorder{Writer: w, began: time.Now()}
	r.mu.open = map[*Call]bool{}
	return r
}

// Now is the run's clock.
func (r *Recorder) Now() time.Duration { return time.Since(r.began) }

// Call is a call that is under way.
type Call struct {
	r    *Recorder
	op   Op
	once sync.Once
}

// Call writes down that a client asks; Return must follow. member is 0 when the
// client's library chooses among members.
func (r *Recorder) Call(client int, member uint64, endpoint, method string, req proto.Message) *Call {
	c := &Call{r: r, op: Op{ID: int(r.ops.Add(1)), Client: client, Member: member, Endpoint: endpoint, Method: method, Request: req}}
	r.mu.Lock()
	r.mu.open[c] = true
	r.mu.Unlock()
	c.op.Call = r.Now()
	return c
}

// Return ends a call with what the client was told and what that means.
func (c *Call) Return(resp proto.Message, outcome Outcome, err error) *Op {
	now := c.r.Now()
	c.once.Do(func() {
		op := &c.op
		op.Return, op.Outcome = now, outcome
		if outcome == OK {
			op.Response = resp
			op.Member = cmp.Or(op.Header().GetMemberId(), op.Member)
		}
		if err != nil {
			op.Err = err.Error()
		}
		c.r.mu.Lock()
		delete(c.r.mu.open, c)
		c.r.mu.Unlock()
		c.r.Op(op)
	})
	return &c.op
}

// errRunEnded ends calls that the end of the run found under way.
var errRunEnded = errors.New("the run ended")

// Close writes down the calls that are under way, with an unknown outcome, and
// closes the file.
func (r *Recorder) Close() error {
	r.mu.Lock()
	open := make([]*Call, 0, len(r.mu.open))
	for c := range r.mu.open {
		open = append(open, c)
	}
	r.mu.Unlock()
	slices.SortFunc(open, func(a, b *Call) int { return cmp.Compare(a.op.ID, b.op.ID) })
	for _, c := range open {
		c.Return(nil, Unknown, errRunEnded)
	}
	return r.Writer.Close()
}

// Watching is a watch that is under way.
type Watching struct {
	r  *Recorder
	id int
}

// Watch writes down that a client opens a watch. Its deliveries must be told in
// their order.
func (r *Recorder) Watch(client int, member uint64, req *pb.WatchCreateRequest) *Watching {
	w := &Watch{ID: int(r.watches.Add(1)), Client: client, Member: member, Opened: r.Now()}
	w.Request = WatchRequest(req)
	r.WatchOpened(w)
	return &Watching{r, w.ID}
}

// Told writes down a delivery.
func (w *Watching) Told(resp *pb.WatchResponse) { w.r.WatchAnswer(w.id, w.r.Now(), Answer(resp)) }

// Ended writes down the end; err is nil when the client ended the watch.
func (w *Watching) Ended(err error) {
	cause := ""
	if err != nil {
		cause = err.Error()
	}
	w.r.WatchEnded(w.id, w.r.Now(), cause)
}

// Begin writes down a fault that begins; End must follow, if it ever does.
func (r *Recorder) Begin(kind string, member uint64, text string) *Fault {
	f := &Fault{ID: int(r.faults.Add(1)), Kind: kind, Member: member, Text: text, Begin: r.Now()}
	r.Fault(*f)
	return f
}

// End writes down that a fault has ended.
func (r *Recorder) End(f *Fault) {
	f.End = r.Now()
	r.Fault(*f)
}

// refusals are the codes of answers after which a request had no effect.
var refusals = []codes.Code{
	codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.FailedPrecondition, codes.ResourceExhausted,
	codes.PermissionDenied, codes.Unauthenticated, codes.AlreadyExists, codes.Unimplemented,
}

// OutcomeOf is what the end of a plain RPC says of its effect.
func OutcomeOf(err error) Outcome {
	switch {
	case err == nil:
		return OK
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Unknown
	case slices.Contains(refusals, status.Code(err)):
		return Refused
	}
	return Unknown
}
