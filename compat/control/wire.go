package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// Wire records what one client asked of the layer and was told: its lists and
// watches, as they came over the connection.
type Wire struct {
	name string
	next http.RoundTripper
	// acked is the highest revision that any writer has been told of.
	acked func() int64

	mu struct {
		sync.Mutex
		lists   []*listing
		streams []*stream
		failed  map[string]int // requests that ended without an answer, or with another than 200
	}
}

// NewWire makes a recorder; Wrap is for rest.Config.
func NewWire(name string, acked func() int64) *Wire {
	w := &Wire{name: name, acked: acked}
	w.mu.failed = map[string]int{}
	return w
}

// Wrap puts the recorder before a transport.
func (w *Wire) Wrap(next http.RoundTripper) http.RoundTripper {
	w.next = next
	return w
}

// asked is what lists and watches have in common.
type asked struct {
	sel    selection
	path   string
	query  url.Values
	began  int64 // what had been acknowledged when it was asked
	wanted int64 // resourceVersion; 0: none
}

func (a *asked) String() string { return a.path + "?" + a.query.Encode() }

// listing is an answer to a list.
type listing struct {
	asked
	Metadata struct {
		ResourceVersion, Continue string
	}
	Items []wireObject
}

// stream is a watch.
type stream struct {
	asked
	mu     sync.Mutex
	events []wireEvent
	broken string // what could not be read
}

type wireObject struct {
	Kind     string
	Code     int
	Reason   string
	Metadata struct {
		Name, Namespace, ResourceVersion, UID string
		Annotations                           map[string]string
	}
}

type wireEvent struct {
	Type   string
	Object wireObject
}

func (o *wireObject) rev() int64 { return number(o.Metadata.ResourceVersion) }

// number reads a resource version; what is none is 0.
func number(version string) int64 {
	n, _ := strconv.ParseInt(version, 10, 64) // 0 is what an error gives
	return n
}

// initialEnd reports whether an event marks the end of the objects that were
// there at the beginning of a watch.
func (e *wireEvent) initialEnd() bool {
	return e.Type == "BOOKMARK" && e.Object.Metadata.Annotations["k8s.io/initial-events-end"] == "true"
}

// RoundTrip implements http.RoundTripper.
func (w *Wire) RoundTrip(req *http.Request) (*http.Response, error) {
	a, ok := w.askedOf(req)
	if !ok {
		return w.next.RoundTrip(req)
	}
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		w.fail(err.Error())
		return resp, err
	}
	if resp.StatusCode != http.StatusOK {
		w.fail(resp.Status)
		return resp, nil
	}
	if a.query.Get("watch") != "" {
		s := &stream{asked: a}
		w.mu.Lock()
		w.mu.streams = append(w.mu.streams, s)
		w.mu.Unlock()
		resp.Body = &streamBody{ReadCloser: resp.Body, to: s}
	} else {
		resp.Body = &listBody{ReadCloser: resp.Body, wire: w, asked: a}
	}
	return resp, nil
}

// fail counts a request that brought nothing, by what such errors have in common.
func (w *Wire) fail(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.failed[lastPart(why)]++
}

// askedOf reads a request; ok is false when it is neither a list nor a watch.
func (w *Wire) askedOf(req *http.Request) (a asked, ok bool) {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	if req.Method != http.MethodGet || len(parts) < 3 {
		return a, false
	}
	group := ""
	switch parts[0] {
	case "api":
		parts = parts[2:]
	case "apis":
		if len(parts) < 4 {
			return a, false
		}
		group, parts = parts[1], parts[3:]
	default:
		return a, false
	}
	a = asked{path: req.URL.Path, query: req.URL.Query(), began: w.acked()}
	if len(parts) == 3 && parts[0] == "namespaces" {
		a.sel.namespace, parts = parts[1], parts[2:]
	}
	if len(parts) != 1 {
		return a, false
	}
	a.sel.prefix = registry + parts[0] + "/"
	if strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io") {
		a.sel.prefix = registry + group + "/" + parts[0] + "/"
	}
	var err, fieldErr error
	a.sel.labels, err = labels.Parse(a.query.Get("labelSelector"))
	a.sel.fields, fieldErr = fields.ParseSelector(a.query.Get("fieldSelector"))
	a.wanted = number(a.query.Get("resourceVersion"))
	return a, err == nil && fieldErr == nil
}

// listBody reads a list along with the client, and keeps it if it is whole.
type listBody struct {
	io.ReadCloser
	wire  *Wire
	asked asked
	got   bytes.Buffer
}

func (b *listBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.got.Write(p[:n])
	if err == io.EOF && b.got.Len() > 0 {
		l := &listing{asked: b.asked}
		if json.Unmarshal(b.got.Bytes(), l) == nil {
			b.wire.mu.Lock()
			b.wire.mu.lists = append(b.wire.mu.lists, l)
			b.wire.mu.Unlock()
		}
		b.got.Reset()
	}
	return n, err
}

// streamBody reads a watch along with the client.
type streamBody struct {
	io.ReadCloser
	to   *stream
	rest []byte
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.rest = append(b.rest, p[:n]...)
	for {
		i := bytes.IndexByte(b.rest, '\n')
		if i < 0 {
			return n, err
		}
		b.to.line(b.rest[:i])
		b.rest = b.rest[i+1:]
	}
}

func (s *stream) line(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var e wireEvent
	if err := json.Unmarshal(b, &e); err != nil {
		s.broken = fmt.Sprintf("%v: %.80q", err, b)
		return
	}
	s.events = append(s.events, e)
}

// recorded returns what there is, streams first.
func (w *Wire) recorded() ([]*stream, []*listing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.streams), slices.Clone(w.mu.lists)
}
