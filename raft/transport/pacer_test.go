package transport

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/keelson-io/keelson/clock"
)

// asked is a clock whose timers fire at once, and which remembers them.
type asked struct {
	*clock.Fake
	rests []time.Duration
}

func (a *asked) NewTimer(d time.Duration) clock.Timer {
	a.rests = append(a.rests, d)
	t := a.Fake.NewTimer(d)
	a.Fake.Advance(d)
	return t
}

// TestReceiverRests: after each portion for as long as it took, but not too long.
func TestReceiverRests(t *testing.T) {
	c := &asked{Fake: clock.NewFake(time.Unix(0, 0))}
	p := pacer{clock: c, last: c.Now()}
	for _, took := range []time.Duration{time.Millisecond, 7 * time.Millisecond, time.Hour, 3 * time.Millisecond} {
		for range syncEvery/chunkBytes - 1 {
			p.took(t.Context(), chunkBytes, false)
		}
		c.Advance(took)
		p.took(t.Context(), chunkBytes, false)
	}
	c.Advance(time.Second)
	for range 20 {
		p.took(t.Context(), hurriedBytes, true)
	}
	for range syncEvery / chunkBytes {
		p.took(t.Context(), chunkBytes, false)
	}
	want := []time.Duration{time.Millisecond, 7 * time.Millisecond, maxRest, 3 * time.Millisecond, 0}
	if !slices.Equal(c.rests, want) {
		t.Errorf("rests of %v, want %v", c.rests, want)
	}
}

// TestHurry: chunks are large while nobody writes, and only then.
func TestHurry(t *testing.T) {
	c, writes := clock.NewFake(time.Unix(0, 0)), uint64(0)
	h := hurry{clock: c, writes: func() uint64 { return writes }}
	for i, step := range []struct {
		wait   time.Duration
		writes uint64
		want   int
	}{
		{0, 0, chunkBytes}, {quietTime - 1, 0, chunkBytes}, {1, 0, hurriedBytes}, {time.Hour, 0, hurriedBytes},
		{0, 3, chunkBytes}, {quietTime / 2, 4, chunkBytes}, {quietTime / 2, 4, chunkBytes}, {quietTime / 2, 4, hurriedBytes},
	} {
		c.Advance(step.wait)
		writes = step.writes
		if got := h.size(); got != step.want {
			t.Errorf("step %d: chunks of %d bytes, want %d", i, got, step.want)
		}
	}
}

// partStream brings the parts of a snapshot.
type partStream struct {
	grpc.ServerStream
	ctx   context.Context
	parts []mem.Buffer
}

func (s *partStream) Context() context.Context { return s.ctx }

func (s *partStream) RecvMsg(m any) error {
	*m.(*mem.BufferSlice) = mem.BufferSlice{s.parts[0]}
	s.parts = s.parts[1:]
	return nil
}

// TestOnlyHurryDoesNotRest: parts as they are sent make the receiver rest after each
// portion, unless they were sent in a hurry.
func TestOnlyHurryDoesNotRest(t *testing.T) {
	for size, want := range map[int]int{chunkBytes: 5, hurriedBytes: 0} {
		stream := &partStream{ctx: t.Context()}
		s := newTestSnapshot(5*syncEvery + 77)
		m, err := newManifest(testIdentity, envelope(1, 2), s)
		if err != nil {
			t.Fatal(err)
		}
		err = writeSnapshot(m, s, func() int { return size }, func(b mem.Buffer) error {
			stream.parts = append(stream.parts, b)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		c := &asked{Fake: clock.NewFake(time.Unix(0, 0))}
		receiver := &GRPC{cfg: GRPCConfig{Clock: c}}
		if err := receiver.takeParts(testDir(t).receive(testIdentity), stream, make(chan struct{}, 1)); err != nil {
			t.Fatal(err)
		}
		if len(c.rests) != want {
			t.Errorf("chunks of %d bytes: %d rests, want %d", size, len(c.rests), want)
		}
	}
}

// TestHurriedSnapshotArrivesWhole: chunks of both sizes, in any order.
func TestHurriedSnapshotArrivesWhole(t *testing.T) {
	s, d, n := newTestSnapshot(9*hurriedBytes+77), testDir(t), 0
	m, err := newManifest(testIdentity, envelope(1, 2), s)
	if err != nil {
		t.Fatal(err)
	}
	size := func() int {
		n++
		return []int{chunkBytes, hurriedBytes, hurriedBytes}[n%3]
	}
	r, done := d.receive(testIdentity), false
	err = writeSnapshot(m, s, size, func(b mem.Buffer) (err error) {
		done, err = r.take(b.ReadOnlyData())
		b.Free()
		return err
	})
	if err != nil || !done {
		t.Fatalf("done %v, error %v", done, err)
	}
	if !bytes.Equal(fileContent(t, d.fs, r.path), s.data) {
		t.Fatal("the file differs")
	}
}
