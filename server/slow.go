package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// slowLog writes about requests that took long, in etcd's words where people look
// for them. It is bounded: a member in trouble has thousands of slow requests a
// second, and must not spend what is left of it on telling so.
type slowLog struct {
	log   *slog.Logger
	clock clock.Clock
	mu    struct {
		sync.Mutex
		second time.Time // in which lines are counted
		lines  int
		unsaid int
	}
}

// slowLines is how many lines a second are written, of both kinds together.
const slowLines = 10

// due reports whether a line may be written now, and how many were not since the
// last one.
func (l *slowLog) due() (unsaid int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	if now.Sub(l.mu.second) >= time.Second {
		l.mu.second, l.mu.lines = now, 0
	}
	if l.mu.lines >= slowLines {
		l.mu.unsaid++
		return 0, false
	}
	l.mu.lines++
	unsaid, l.mu.unsaid = l.mu.unsaid, 0
	return unsaid, true
}

// warn writes a line about a request, unless there were too many.
func (l *slowLog) warn(what string, took, limit time.Duration, err error, attrs func() []slog.Attr) {
	unsaid, due := l.due()
	if !due {
		return
	}
	all := append([]slog.Attr{slog.String("took", took.String()), slog.String("expected-duration", limit.String())}, attrs()...)
	if err != nil {
		all = append(all, slog.String("error", err.Error()))
	}
	if unsaid > 0 {
		all = append(all, slog.Int("unsaid", unsaid))
	}
	l.log.LogAttrs(context.Background(), slog.LevelWarn, what, all...)
}

// etcd's words for what took this member long to evaluate.
const slowApply = "apply request took too long"

// slowCommand tells of a command that took long to apply. It is decoded again:
// that happens a few times a second at most.
func (s *Server) slowCommand(kind uint8, body []byte, took time.Duration, err error) {
	s.metrics.store.slow.Inc()
	s.slow.warn(slowApply, took, s.cfg.WarnApplyDuration, err, func() []slog.Attr {
		attrs := []slog.Attr{slog.String("request", appliedOps[kind]), slog.Int("request-size", len(body))}
		var r interface {
			request
			accessor
		}
		switch kind {
		case commandPut:
			r = &putRequest{}
		case commandDelete:
			r = &deleteRequest{}
		case commandTxn:
			r = &txnRequest{}
		default:
			return attrs
		}
		if r.decode(body) == nil {
			attrs = append(attrs, describe(r)...)
		}
		return attrs
	})
}

// slowRead tells of a range that took long to read.
func (s *Server) slowRead(r *rangeRequest, took time.Duration, err error) {
	s.metrics.store.slow.Inc()
	s.slow.warn(slowApply, took, s.cfg.WarnApplyDuration, err, func() []slog.Attr {
		return append([]slog.Attr{slog.String("prefix", "read-only range "), slog.String("request", "Range")}, describe(r)...)
	})
}
