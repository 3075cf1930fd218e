package server

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb/gw"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// Bounds of the gateway. JSON takes more memory than the messages it stands
// for: an empty operation is three bytes of JSON and a hundred of memory, and a
// value is there as bytes, as base64 and as the text around it. What all
// requests together take is bounded by gatewayBudget; who finds it used up
// waits, and is then refused.
const (
	gatewayBudget = 256 << 20
	bodyFactor    = 64
	answerFactor  = 8
	// maxGatewayAnswer bounds one answer; it may have the whole budget.
	maxGatewayAnswer = 128 << 20
)

// Paths of the gateway, and what they were called once.
const (
	gatewayPath     = "/v3/"
	gatewayBetaPath = "/v3beta/"
)

// twoWay are the paths whose body goes on while the answer comes.
var twoWay = map[string]bool{"/v3/watch": true, "/v3/lease/keepalive": true}

// gateway turns JSON over HTTP into RPCs of this member, by the mapping that
// etcd publishes with its protocol.
type gateway struct {
	mux    *runtime.ServeMux
	conn   *innerConn
	budget *budget
}

func newGateway(g *grpc.Server, c clock.Clock, timeout time.Duration) *gateway {
	ctx := context.Background() // the registrations do not use it
	w := &gateway{
		conn: &innerConn{server: g}, budget: newBudget(gatewayBudget, c, timeout),
		mux: runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{
			Marshaler: &runtime.JSONPb{
				MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
				UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
			},
		})),
	}
	err := errors.Join(
		gw.RegisterKVHandlerClient(ctx, w.mux, pb.NewKVClient(w.conn)),
		gw.RegisterWatchHandlerClient(ctx, w.mux, pb.NewWatchClient(w.conn)),
		gw.RegisterLeaseHandlerClient(ctx, w.mux, pb.NewLeaseClient(w.conn)),
		gw.RegisterClusterHandlerClient(ctx, w.mux, pb.NewClusterClient(w.conn)),
		gw.RegisterMaintenanceHandlerClient(ctx, w.mux, pb.NewMaintenanceClient(w.conn)),
		gw.RegisterAuthHandlerClient(ctx, w.mux, pb.NewAuthClient(w.conn)),
		w.offer(newSchema()),
	)
	if err != nil {
		panic(fmt.Sprintf("gateway: %v", err)) // constants only
	}
	return w
}

// offer adds the services that the published package lacks.
func (g *gateway) offer(s *schema) error {
	var errs []error
	for path, service := range map[string]protoreflect.FullName{"lock": "v3lockpb.Lock", "election": "v3electionpb.Election"} {
		d, err := s.own.FindDescriptorByName(service)
		if err != nil {
			return err
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			pattern := gatewayPath + path + "/" + strings.ToLower(string(m.Name()))
			name := fmt.Sprintf("/%s/%s", service, m.Name())
			errs = append(errs, g.mux.HandlePath(http.MethodPost, pattern, func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
				g.call(w, r, m, name, pattern)
			}))
		}
	}
	return errors.Join(errs...)
}

// call serves one RPC by its description, as the generated code does.
func (g *gateway) call(w http.ResponseWriter, r *http.Request, m protoreflect.MethodDescriptor, name, pattern string) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	in, out := runtime.MarshalerForRequest(g.mux, r)
	annotated, err := runtime.AnnotateContext(ctx, g.mux, r, name, runtime.WithHTTPPathPattern(pattern))
	if err != nil {
		runtime.HTTPError(ctx, g.mux, out, w, r, err)
		return
	}
	ctx = annotated
	req := dynamicpb.NewMessage(m.Input())
	if err := in.NewDecoder(r.Body).Decode(req); err != nil && !errors.Is(err, io.EOF) {
		runtime.HTTPError(ctx, g.mux, out, w, r, status.Errorf(codes.InvalidArgument, "%v", err))
		return
	}
	s, err := g.conn.NewStream(ctx, nil, name)
	if err == nil {
		if err = s.SendMsg(req); err == io.EOF {
			err = nil // RecvMsg tells why
		}
	}
	if err == nil {
		err = s.CloseSend()
	}
	if err != nil {
		runtime.HTTPError(ctx, g.mux, out, w, r, err)
		return
	}
	recv := func() (proto.Message, error) {
		resp := dynamicpb.NewMessage(m.Output())
		return resp, s.RecvMsg(resp)
	}
	header, _ := s.Header()
	answered := runtime.NewServerMetadataContext(ctx, runtime.ServerMetadata{HeaderMD: header})
	if m.IsStreamingServer() {
		runtime.ForwardResponseStream(answered, g.mux, out, w, r, recv)
		return
	}
	resp, err := recv()
	if err != nil {
		runtime.HTTPError(ctx, g.mux, out, w, r, err)
		return
	}
	runtime.ForwardResponseMessage(answered, g.mux, out, w, r, resp)
}

// ServeHTTP implements http.Handler. The guard has bounded the body.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rest, ok := strings.CutPrefix(r.URL.Path, gatewayBetaPath); ok {
		u := *r.URL
		u.Path, u.RawPath = gatewayPath+rest, ""
		r2 := *r
		r2.URL = &u
		r = &r2
	}
	c := &caller{request: r, budget: g.budget}
	defer c.release()
	ctx := context.WithValue(r.Context(), callerKey{}, c)
	if twoWay[r.URL.Path] {
		// HTTP/1.1 would otherwise stop reading at the first byte of the answer.
		// A writer that cannot do both has read all of the body.
		_ = http.NewResponseController(w).EnableFullDuplex()
		g.mux.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		g.refuseBody(w, r, err)
		return
	}
	r = r.WithContext(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := c.hold(ctx, int64(len(body))*bodyFactor); err != nil {
		_, out := runtime.MarshalerForRequest(g.mux, r)
		runtime.HTTPError(ctx, g.mux, out, w, r, err)
		return
	}
	g.mux.ServeHTTP(w, r)
}

func (g *gateway) refuseBody(w http.ResponseWriter, r *http.Request, err error) {
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		http.Error(w, fmt.Sprintf("the body is longer than %d bytes", long.Limit), http.StatusRequestEntityTooLarge)
		return
	}
	http.Error(w, "the body cannot be read: "+err.Error(), http.StatusBadRequest)
}

// callerKey is where a gateway request's context has its *caller.
type callerKey struct{}

// caller is one HTTP request in the gateway, with its share of the budget.
type caller struct {
	request *http.Request
	budget  *budget
	mu      struct {
		sync.Mutex
		held int64
		over bool
	}
}

// hold gives back what the caller has and takes n.
func (c *caller) hold(ctx context.Context, n int64) error {
	c.mu.Lock()
	c.budget.give(c.mu.held)
	c.mu.held = 0
	c.mu.Unlock()
	if n == 0 {
		return nil
	}
	n = min(n, c.budget.size)
	if err := c.budget.take(ctx, n); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.over { // nobody waits for the answer any more
		c.budget.give(n)
		return context.Canceled
	}
	c.mu.held = n
	return nil
}

// release ends the request.
func (c *caller) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budget.give(c.mu.held)
	c.mu.held, c.mu.over = 0, true
}

// budget lends bytes, first come, first served.
type budget struct {
	size    int64
	clock   clock.Clock
	timeout time.Duration
	mu      struct {
		sync.Mutex
		free    int64
		waiting list.List // of *loan
	}
}

// loan is somebody who waits for n bytes; ready is closed when it has them.
type loan struct {
	n     int64
	ready chan struct{}
}

func newBudget(size int64, c clock.Clock, timeout time.Duration) *budget {
	b := &budget{size: size, clock: c, timeout: timeout}
	b.mu.free = size
	return b
}

// take waits for n bytes, which are at most all there are.
func (b *budget) take(ctx context.Context, n int64) error {
	b.mu.Lock()
	if b.mu.free >= n && b.mu.waiting.Len() == 0 {
		b.mu.free -= n
		b.mu.Unlock()
		return nil
	}
	l := &loan{n, make(chan struct{})}
	element := b.mu.waiting.PushBack(l)
	b.mu.Unlock()
	timer := b.clock.NewTimer(b.timeout)
	defer timer.Stop()
	var err error
	select {
	case <-l.ready:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C():
		err = api.ErrTooManyRequests
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-l.ready:
		b.mu.free += n
	default:
		b.mu.waiting.Remove(element)
	}
	b.lendLocked()
	return err
}

// give returns n bytes.
func (b *budget) give(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.free += n; b.mu.free > b.size {
		panic(fmt.Sprintf("gateway: %d of %d bytes are free", b.mu.free, b.size))
	}
	b.lendLocked()
}

func (b *budget) lendLocked() {
	for e := b.mu.waiting.Front(); e != nil && e.Value.(*loan).n <= b.mu.free; e = b.mu.waiting.Front() {
		l := b.mu.waiting.Remove(e).(*loan)
		b.mu.free -= l.n
		close(l.ready)
	}
}
