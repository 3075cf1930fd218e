package mvcc

import (
	"fmt"
	"testing"

	"github.com/keelson-io/keelson/api"
)

// BenchmarkFanOut is the hub's part of a watched write, from publish to the
// last delivery taken, without gRPC. One op is one event delivered.
func BenchmarkFanOut(b *testing.B) {
	for _, streams := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("prefix/1000watchers/%dstreams", streams), func(b *testing.B) {
			h := newHub(nil, 1)
			var all []*WatchStream
			for i := range 1000 {
				if i < streams {
					all = append(all, h.newStream())
				}
				if _, err := all[i%streams].Watch(WatchRequest{Key: []byte("k"), End: []byte("l"), PrevKV: true}); err != nil {
					b.Fatal(err)
				}
			}
			drain(all)
			b.ReportAllocs()
			for rev, n := api.Revision(2), 0; n < b.N; rev++ {
				h.publish(rev, []*Event{benchEvent(rev, "key")}, func() {})
				n += drain(all)
			}
		})
	}
}

// BenchmarkSingleKeys is a write to one of many keys that are watched one by
// one. One op is one write.
func BenchmarkSingleKeys(b *testing.B) {
	const watchers = 10000
	h := newHub(nil, 1)
	s := h.newStream()
	keys := make([]string, watchers)
	for i := range watchers {
		keys[i] = fmt.Sprint("key", i)
		if _, err := s.Watch(WatchRequest{Key: []byte(keys[i])}); err != nil {
			b.Fatal(err)
		}
	}
	all := []*WatchStream{s}
	drain(all)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		rev := api.Revision(i + 2)
		h.publish(rev, []*Event{benchEvent(rev, keys[i%watchers])}, func() {})
		drain(all)
	}
}

// BenchmarkUnwatched is what a write costs when nobody watches its key, with
// many ranges watched elsewhere.
func BenchmarkUnwatched(b *testing.B) {
	h := newHub(nil, 1)
	s := h.newStream()
	for i := range 1000 {
		if _, err := s.Watch(WatchRequest{Key: fmt.Appendf(nil, "/registry/%d/", i), End: fmt.Appendf(nil, "/registry/%d0", i)}); err != nil {
			b.Fatal(err)
		}
	}
	e := benchEvent(0, "/other")
	b.ReportAllocs()
	for i := range b.N {
		e.Rev = api.Revision(i + 2)
		h.publish(e.Rev, []*Event{e}, func() {})
	}
}

func benchEvent(rev api.Revision, key string) *Event {
	return &Event{Rev: rev, Key: []byte(key), KV: make(Record, 300), Prev: make(Record, 300)}
}

// drain takes all deliveries of the streams.
func drain(streams []*WatchStream) (events int) {
	for _, s := range streams {
		for {
			d, ok := s.Taken()
			if !ok {
				if wait, err := s.refill(); wait || err != nil {
					break
				}
				continue
			}
			if d.Kind == DeliverEvents {
				events += len(d.Batch.Events)
			}
		}
	}
	return events
}
