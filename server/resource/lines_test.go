package resource

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/keelson-io/keelson/clock"
)

// deadlines is a client's connection that only tells when it is ended.
type deadlines struct {
	http.ResponseWriter
	ended     chan struct{} // for writing
	readEnded chan struct{}
}

func (d *deadlines) SetWriteDeadline(time.Time) error { d.ended <- struct{}{}; return nil }
func (d *deadlines) SetReadDeadline(time.Time) error  { d.readEnded <- struct{}{}; return nil }
func (d *deadlines) FlushError() error                { return nil }

func newLines() (*lineWriter, *clock.Fake, *deadlines) {
	to := &deadlines{httptest.NewRecorder(), make(chan struct{}, 10), make(chan struct{}, 10)}
	fake := clock.NewFake(time.Unix(1000, 0))
	return newLineWriter(to, fake), fake, to
}

// TestQuietWatchLives: the time that a client has to take a line does not end a
// watch that has nothing to say, nor one that makes progress, nor one that is over.
func TestQuietWatchLives(t *testing.T) {
	out, fake, to := newLines()
	for range 4 {
		fake.Advance(StallTimeout / 2)
		for range 2 {
			if err := out.write([]byte("{}\n")); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.flush(); err != nil {
			t.Fatal(err)
		}
	}
	fake.Advance(2 * StallTimeout)
	out.begin()
	out.close()
	out.look() // it was about to when the watch ended
	fake.Advance(2 * StallTimeout)
	if len(to.ended) > 0 {
		t.Error("a watch was ended that did not stall")
	}
}

// TestStalledWatchEnds: a client that does not take a line loses its watch, whether or
// not the guard ran already when it was written.
func TestStalledWatchEnds(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		out, fake, to := newLines()
		defer out.close()
		if err := out.flush(); err != nil {
			t.Fatal(err)
		}
		if quiet {
			out.look()
		}
		out.begin()
		for waited := time.Now(); len(to.ended) == 0; {
			if time.Since(waited) > time.Minute {
				t.Fatalf("quiet %v: the watch goes on", quiet)
			}
			fake.Advance(StallTimeout) // the guard looks in a goroutine of its own
			time.Sleep(time.Millisecond)
		}
	}
}

// TestLinesAreGathered: what comes at once goes out in few writes, in order, and
// what was given is not changed.
func TestLinesAreGathered(t *testing.T) {
	to := httptest.NewRecorder()
	writes := &countedWrites{ResponseWriter: to}
	out := newLineWriter(writes, clock.NewFake(time.Unix(1000, 0)))
	defer out.close()
	var want []byte
	for i := range 400 {
		line := append(bytes.Repeat([]byte{byte('a' + i%26)}, 1000), '\n')
		want = append(want, line...)
		if err := out.write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.flush(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(to.Body.Bytes(), want) {
		t.Error("the lines are not those that were written")
	}
	if n := len(want)/flushBytes + 1; writes.n > n {
		t.Errorf("%d writes, want at most %d", writes.n, n)
	}
}

type countedWrites struct {
	http.ResponseWriter
	n int
}

func (c *countedWrites) Write(p []byte) (int, error) { c.n++; return c.ResponseWriter.Write(p) }
func (c *countedWrites) FlushError() error           { return nil }
