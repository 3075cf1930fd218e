package server

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/topk"
)

// hotSpots finds the keys, prefixes and clients that a member is asked about the
// most, at a bounded cost: one request of sampleEvery is looked at, by a sketch
// of hotRoom places for each of the three. Figures are of the last one to two
// windows, so that what was hot yesterday is forgotten.
type hotSpots struct {
	clock  clock.Clock
	random func() uint64
	mu     struct {
		sync.Mutex
		now, before *hotWindow // before may be nil
	}
}

// hotWindow is what was seen from a moment on.
type hotWindow struct {
	since                   time.Time
	keys, prefixes, clients *topk.Sketch[heat]
}

// heat is what was asked, of the requests that were looked at.
type heat struct{ reads, writes, watches, bytes uint64 }

const (
	sampleEvery = 16 // a power of two
	// hotRoom is how many keys, prefixes and clients each window has room for;
	// what has more than 1/hotRoom of the requests is surely found.
	hotRoom = 512
	hotSpan = time.Minute
	// maxHotKey bounds the keys that are kept.
	maxHotKey = 256
)

func newHotSpots(c clock.Clock, random func() uint64) *hotSpots {
	h := &hotSpots{clock: c, random: random}
	h.mu.now = h.window()
	return h
}

func (h *hotSpots) window() *hotWindow {
	return &hotWindow{
		since: h.clock.Now(),
		keys:  topk.New[heat](hotRoom), prefixes: topk.New[heat](hotRoom), clients: topk.New[heat](hotRoom),
	}
}

// sampled reports whether this request is one to look at. Chance decides, not a
// count: clients have rhythms.
func (h *hotSpots) sampled() bool { return h.random()&(sampleEvery-1) == 0 }

// touched is a key or range of a request, once however often the request has it.
type touched struct {
	key, end []byte
	heat
}

// maxTouched bounds the keys of one request that are counted.
const maxTouched = 16

// touches lists what a request does with keys.
func touches(r accessor, watches bool) []touched {
	var out []touched
	_ = r.accesses(func(a access) error {
		if a.kind == useLease || a.kind == seeLease {
			return nil
		}
		i := slices.IndexFunc(out, func(t touched) bool { return bytes.Equal(t.key, a.key) && bytes.Equal(t.end, a.end) })
		if i < 0 {
			if len(out) == maxTouched {
				return errEnough
			}
			i, out = len(out), append(out, touched{key: a.key, end: a.end})
		}
		switch {
		case watches:
			out[i].watches = 1
		case a.kind == writeKeys:
			out[i].writes = 1
		default:
			out[i].reads = 1
		}
		return nil
	})
	return out
}

// note looks at a request of a client that moved so many bytes. They are counted
// with its first key.
func (h *hotSpots) note(client string, r accessor, watches bool, size int) {
	list := touches(r, watches)
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.clock.Now(); now.Sub(h.mu.now.since) >= hotSpan {
		h.mu.before, h.mu.now = h.mu.now, h.window()
	}
	w, whole := h.mu.now, heat{bytes: uint64(size)}
	for i, t := range list {
		if i == 0 {
			t.bytes = uint64(size)
		}
		key := t.key[:min(len(t.key), maxHotKey)]
		w.prefixes.Add(prefixOf(key)).add(t.heat)
		if len(t.end) == 0 {
			w.keys.Add(key).add(t.heat)
		}
		whole.reads, whole.writes, whole.watches = whole.reads|t.reads, whole.writes|t.writes, whole.watches|t.watches
	}
	w.clients.Add([]byte(client)).add(whole)
}

func (t *heat) add(o heat) {
	t.reads += o.reads
	t.writes += o.writes
	t.watches += o.watches
	t.bytes += o.bytes
}

// flatPrefix is how much of a key without slashes counts as its prefix.
const flatPrefix = 8

// prefixOf is the part of a key that names its kind: /registry/pods/ns/name
// belongs to /registry/pods/, a/b/c to a/b/.
func prefixOf(key []byte) []byte {
	parts, from := 2, 0
	if len(key) > 0 && key[0] == '/' {
		from = 1
	}
	for ; parts > 0; parts-- {
		i := bytes.IndexByte(key[from:], '/')
		if i < 0 {
			break
		}
		from += i + 1
	}
	if from <= 1 {
		return key[:min(len(key), flatPrefix)]
	}
	return key[:from]
}

// clientName is how a client is told from others: its user, or its host.
func (s *Server) clientName(ctx context.Context) string {
	host := clientAddress(ctx)
	if who := s.whoAsks(ctx); who.Known() {
		return who.Name + "@" + host
	}
	return host
}

// heatOf looks at a request if chance wants it.
func (s *Server) heatOf(ctx context.Context, req any, size int) {
	r, ok := req.(accessor)
	if !ok || !s.hot.sampled() {
		return
	}
	_, watches := req.(watchRange)
	s.hot.note(s.clientName(ctx), r, watches, size)
}
