package resource

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// deadlines is a client's connection that only tells when it is ended.
type deadlines struct {
	http.ResponseWriter
	ended chan struct{}
}

func (d *deadlines) SetWriteDeadline(time.Time) error { d.ended <- struct{}{}; return nil }
func (d *deadlines) FlushError() error                { return nil }

func newLines() (*lineWriter, *clock.Fake, *deadlines) {
	to := &deadlines{httptest.NewRecorder(), make(chan struct{}, 10)}
	fake := clock.NewFake(time.Unix(1000, 0))
	return newLineWriter(to, fake), fake, to
}

// TestQuietWatchLives: the time that a client has to take a line does not end a
// watch that has nothing to say, nor one that makes progress, nor one that is over.
func TestQuietWatchLives(t *testing.T) {
	out, fake, to := newLines()
	for range 4 {
		fake.Advance(stallTimeout / 2)
		if err := out.write(make([]byte, 8<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.flush(); err != nil {
		t.Fatal(err)
	}
	fake.Advance(2 * stallTimeout)
	if err := out.write([]byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	out.close()
	out.stalled() // it was about to when the watch ended
	fake.Advance(2 * stallTimeout)
	if len(to.ended) > 0 {
		t.Error("a watch was ended that did not stall")
	}
}

// TestStalledWatchEnds: a client that does not take a line loses its watch.
func TestStalledWatchEnds(t *testing.T) {
	out, fake, to := newLines()
	defer out.close()
	if err := out.flush(); err != nil {
		t.Fatal(err)
	}
	if err := out.write([]byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	fake.Advance(stallTimeout)
	select {
	case <-to.ended:
	case <-time.After(time.Minute):
		t.Fatal("the watch goes on")
	}
}
