package resource

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server/lane"
)

// until lets the time go on until something has happened.
func until(t testing.TB, fake *clock.Fake, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
		fake.Advance(time.Second)
	}
}

// protocols are clients that speak one protocol each.
func protocols() map[string]*http.Client {
	one, two := new(http.Protocols), new(http.Protocols)
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	return map[string]*http.Client{
		"HTTP/1.1": {Transport: &http.Transport{Protocols: one, DisableCompression: true}},
		"HTTP/2":   {Transport: &http.Transport{Protocols: two, DisableCompression: true}},
	}
}

// stallServer serves a layer whose store has more than sockets and clients hold unread.
func stallServer(t *testing.T) (*Layer, *clock.Fake, *httptest.Server) {
	t.Helper()
	s := newLoneStore(t)
	s.hears(true)
	for i := range 32 {
		s.put(fmt.Sprintf("/registry/configmaps/default/c%d", i), strings.TrimSuffix(stored(fmt.Sprint("c", i)), "}")+`,"data":{"k":"`+strings.Repeat("v", 1<<20)+`"}}`)
	}
	l, fake := runLayer(t, s)
	server := httptest.NewUnstartedServer(l)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	until(t, fake, "the layer has caught up", func() bool { return l.feed.revision() > 0 })
	return l, fake, server
}

// TestClientThatDoesNotRead: whoever does not take what it has asked for gives its place to
// others, and does not take what it got for the whole.
func TestClientThatDoesNotRead(t *testing.T) {
	l, fake, server := stallServer(t)
	for name, client := range protocols() {
		answer, err := client.Get(server.URL + "/api/v1/configmaps")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(l.places.reads) != 1 {
			t.Fatalf("%s: the list was taken to its end", name)
		}
		until(t, fake, name+": the list's place is free", func() bool { return len(l.places.reads) == 0 })
		if n, err := io.Copy(io.Discard, answer.Body); err == nil {
			t.Errorf("%s: a list that was cut after %d bytes ends well", name, n)
		}
		answer.Body.Close()
		client.CloseIdleConnections()
	}
}

// TestClientThatDoesNotSend: whoever does not send what it has announced is told so, and gives
// its place to others.
func TestClientThatDoesNotSend(t *testing.T) {
	l, fake, server := stallServer(t)
	for name, client := range protocols() {
		body, stall := io.Pipe()
		defer stall.Close()
		r, err := http.NewRequest(http.MethodPost, server.URL+"/api/v1/namespaces/default/configmaps", body)
		if err != nil {
			t.Fatal(err)
		}
		type reply struct {
			code int
			text []byte
			err  error
		}
		replies := make(chan reply, 1)
		go func() {
			answer, err := client.Do(r)
			if err != nil {
				replies <- reply{err: err}
				return
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			replies <- reply{answer.StatusCode, text, err}
		}()
		if _, err := io.WriteString(stall, `{"kind":`); err != nil {
			t.Fatal(err)
		}
		until(t, fake, name+": an answer", func() bool { return len(replies) > 0 })
		if got := <-replies; got.err != nil || got.code != http.StatusGatewayTimeout || !bytes.Contains(got.text, []byte(`"reason":"Timeout"`)) {
			t.Errorf("%s: %d %s %v", name, got.code, got.text, got.err)
		}
		until(t, fake, name+": the write's place is free", func() bool { return len(l.places.writes) == 0 })
		client.CloseIdleConnections()
	}
}

// TestBoundsOfReading: a read ends by its deadline only while somebody reads the body, and they
// know; lifted bounds do nothing.
func TestBoundsOfReading(t *testing.T) {
	fake := clock.NewFake(time.Unix(1000, 0))
	to := &deadlines{httptest.NewRecorder(), make(chan struct{}, 10), make(chan struct{}, 10)}
	begin := func() *call {
		c := &call{layer: &Layer{clock: fake}, w: to, ctx: t.Context()}
		c.bound()
		return c
	}
	nothing := func() ([]byte, error) { return nil, nil }
	c := begin()
	if _, err := c.bounds.within(nothing); err != nil {
		t.Fatal(err)
	}
	c.bounds.endRequest()
	if len(to.readEnded) > 0 {
		t.Error("a connection was ended for reading by whose body had been read")
	}
	if !errors.Is(context.Cause(c.ctx), context.DeadlineExceeded) {
		t.Errorf("the request goes on: %v", context.Cause(c.ctx))
	}
	if _, err := c.bounds.within(nothing); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a body was read too late: %v", err)
	}
	c = begin()
	_, err := c.bounds.within(func() ([]byte, error) {
		c.bounds.endRequest()
		return []byte("all of it"), nil
	})
	if !errors.Is(err, context.DeadlineExceeded) || len(to.readEnded) != 1 {
		t.Errorf("%v, and %d ends of reading, want one that the reader sees", err, len(to.readEnded))
	}
	c = begin()
	c.bounds.lift()
	c.bounds.endRequest() // it was about to
	c.bounds.endAnswer()
	fake.Advance(2 * answerTimeout)
	if len(to.readEnded) != 1 || len(to.ended) > 0 {
		t.Error("bounds that were lifted touched the connection")
	}
}

// TestTimeoutOfTheClient: a request ends when its client says, not later than others do; what
// is no time is refused.
func TestTimeoutOfTheClient(t *testing.T) {
	fake := clock.NewFake(time.Unix(1000, 0))
	begin := func(asked string) (*call, error) {
		c := &call{layer: &Layer{clock: fake}, w: httptest.NewRecorder(), ctx: t.Context(), query: url.Values{"timeout": {asked}}}
		c.bound()
		return c, c.tighten()
	}
	for asked, want := range map[string]time.Duration{"": requestTimeout, "0": requestTimeout, "-1s": requestTimeout, "5s": 5 * time.Second, "2h": requestTimeout} {
		c, err := begin(asked)
		if err != nil {
			t.Fatalf("%q: %v", asked, err)
		}
		fake.Advance(want - 1)
		time.Sleep(time.Millisecond) // what ended too early has a moment to be seen
		if c.ctx.Err() != nil {
			t.Errorf("%q: the request ended before its time", asked)
		}
		fake.Advance(1)
		select {
		case <-c.ctx.Done():
		case <-time.After(time.Minute):
			t.Errorf("%q: the request goes on", asked)
		}
		c.bounds.lift()
	}
	l, _ := runLayer(t, newLoneStore(t))
	w := httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/configmaps?timeout=soon", nil))
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "invalid timeout specified in the request URL - time: invalid duration") {
		t.Errorf("no time: %d %s", w.Code, w.Body)
	}
}

// TestRequestsFollowEachOther: a request's bounds end with it, and leave the next one on its
// connection alone.
func TestRequestsFollowEachOther(t *testing.T) {
	_, fake, server := stallServer(t)
	for name, client := range protocols() {
		for range 3 {
			answer, err := client.Get(server.URL + "/api/v1/namespaces/default/configmaps/c1")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			text, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Errorf("%s: %d %.200s %v", name, answer.StatusCode, text, err)
			}
			fake.Advance(2 * answerTimeout)
		}
		client.CloseIdleConnections()
	}
}

// lanes puts a lane before each connection.
type lanes struct{ net.Listener }

func (l lanes) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return lane.New(conn), nil
}

// TestStalledWatchPastNetHTTP: a watch whose events go past net/http, and whose client grants
// nothing more, ends as others do, and its stream alone.
func TestStalledWatchPastNetHTTP(t *testing.T) {
	fake := clock.NewFake(time.Unix(1000, 0))
	ended := make(chan error, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/watch" {
			return
		}
		w.Header().Set("Audit-Id", hex.EncodeToString(bytes.Repeat([]byte{7}, 16)))
		c := &call{layer: &Layer{clock: fake}, w: w, r: r, ctx: r.Context()}
		out := c.lines()
		defer out.close()
		err := out.flush()
		for err == nil && !out.past.Ready(out.given) {
			time.Sleep(time.Millisecond)
		}
		for err == nil {
			if err = out.write(bytes.Repeat([]byte("v"), 1000)); err == nil {
				err = out.flush()
			}
		}
		ended <- err
	}))
	server.Listener = lanes{server.Listener}
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return lane.With(ctx, conn.(*lane.Conn))
	}
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reset, other := make(chan struct{}), make(chan struct{})
	framer := http2.NewFramer(conn, conn)
	io.WriteString(conn, http2.ClientPreface)
	framer.WriteSettings()
	framer.WriteWindowUpdate(0, 8<<20) // the connection may, the stream may not
	askRaw(t, framer, 1, "/watch")
	go func() {
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.RSTStreamFrame:
				if f.StreamID == 1 {
					close(reset)
				}
			case *http2.HeadersFrame:
				if f.StreamID == 3 {
					close(other)
				}
			}
		}
	}()
	until(t, fake, "the watch ends", func() bool { return len(ended) > 0 })
	until(t, fake, "its stream is reset", func() bool { return isClosed(reset) })
	askRaw(t, framer, 3, "/")
	until(t, fake, "another request of the connection is answered", func() bool { return isClosed(other) })
}

// askRaw sends a request without a body.
func askRaw(t *testing.T, framer *http2.Framer, stream uint32, path string) {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", path}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		t.Error(err)
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
