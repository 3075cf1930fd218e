package resource

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// bounds end a request after requestTimeout: its context, and its body if that is still being
// read. If the client has not taken the answer by answerTimeout, that ends, too. Otherwise a
// client that neither sends nor takes would keep for ever what it holds: one of the places
// that all requests share.
//
// Invariants: once lift has returned, nothing of the request's connection is touched, for the
// next request may be on it. And the end of a read is seen by who reads: net/http reads on
// behind a body to learn whether the client leaves, takes what it then sees for that, and
// gives the connection's next requests a context that has ended.
type bounds struct {
	cancel  context.CancelCauseFunc
	ctl     *http.ResponseController
	request clock.Timer
	answer  clock.Timer

	mu struct {
		sync.Mutex
		lifted  bool
		reading bool // the body
		late    bool // requestTimeout has passed
	}
}

// bound begins to bound the request.
func (c *call) bound() {
	b := &bounds{ctl: http.NewResponseController(c.w)}
	c.ctx, b.cancel = context.WithCancelCause(c.ctx)
	b.request = c.layer.clock.AfterFunc(requestTimeout, b.endRequest)
	b.answer = c.layer.clock.AfterFunc(answerTimeout, b.endAnswer)
	c.bounds = b
}

// tighten shortens the bounds to what the client asks for.
func (c *call) tighten() error {
	asked := c.query.Get("timeout")
	if asked == "" {
		return nil
	}
	d, err := time.ParseDuration(asked)
	if err != nil {
		return badRequest("invalid timeout specified in the request URL - %v", err)
	}
	if d > 0 && d < requestTimeout {
		c.bounds.request.Reset(d)
		c.bounds.answer.Reset(d + answerTimeout - requestTimeout)
	}
	return nil
}

func (b *bounds) endRequest() {
	b.cancel(context.DeadlineExceeded)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.late = true
	if b.mu.reading {
		_ = b.ctl.SetReadDeadline(time.Unix(1, 0)) // without deadlines nothing can end it
	}
}

func (b *bounds) endAnswer() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.mu.lifted {
		_ = b.ctl.SetWriteDeadline(time.Unix(1, 0)) // as above
	}
}

// within reads the body, by a function.
func (b *bounds) within(read func() ([]byte, error)) ([]byte, error) {
	if b.setReading(true) {
		return nil, context.DeadlineExceeded
	}
	p, err := read()
	if b.setReading(false) {
		return nil, context.DeadlineExceeded
	}
	return p, err
}

func (b *bounds) setReading(yes bool) (late bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.reading = yes
	return b.mu.late
}

// lift takes the bounds away, at the request's end or because it has other ones.
func (b *bounds) lift() {
	b.request.Stop()
	b.answer.Stop()
	b.mu.Lock()
	b.mu.lifted = true
	b.mu.Unlock()
	b.cancel(nil)
}
