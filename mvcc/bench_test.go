package mvcc

import (
	"fmt"
	"math/rand"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// benchKey is a key as a control plane has them.
func benchKey(i int) []byte {
	return fmt.Appendf(nil, "/registry/pods/namespace-%03d/pod-%07d", i%100, i)
}

// fill puts n keys of size bytes each, in random order, and makes them durable.
func fill(tb testing.TB, s *Store, n, size int) {
	tb.Helper()
	value := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(value)
	for i, k := range rand.New(rand.NewSource(2)).Perm(n) {
		t := s.Begin()
		t.Put(benchKey(k), value, 0)
		t.End()
		if i%32 == 31 || i == n-1 {
			s.Seal(api.Index(i+1), 1)
			s.Publish()
		}
	}
	if err := s.Flush(); err != nil {
		tb.Fatal(err)
	}
}

func openBolt(tb testing.TB, path string, sync bool) engine.Engine {
	tb.Helper()
	e, err := engine.OpenBolt(path, engine.BoltOptions{NoSync: !sync})
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// cpu returns the processor time that the process has used: on a machine that
// others use too, it tells more than the clock.
func cpu(tb testing.TB) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// reportCPU reports the processor time of an operation since start.
func reportCPU(b *testing.B, start int64) {
	b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/op")
}

// discard is an engine that keeps nothing, so that what is measured is apply.
type discard struct{ *engine.Memory }

func (discard) Commit(*engine.Batch) error { return nil }

func openDiscard(tb testing.TB) *Store {
	tb.Helper()
	s, err := Open(Config{Clock: clock.System(), Engine: discard{engine.NewMemory()}, TailBytes: 4 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// BenchmarkPut overwrites random keys of 256 bytes; batch is how many
// transactions are sealed together, read says that somebody reads each state.
func BenchmarkPut(b *testing.B) {
	for _, keys := range []int{1_000, 100_000, 1_000_000} {
		for _, batch := range []int{1, 16, 256} {
			name := fmt.Sprintf("keys=%d/batch=%d", keys, batch)
			b.Run(name, func(b *testing.B) { benchmarkPut(b, keys, batch, false) })
			b.Run(name+"/read", func(b *testing.B) { benchmarkPut(b, keys, batch, true) })
		}
	}
}

func benchmarkPut(b *testing.B, keys, batch int, read bool) {
	s := openDiscard(b)
	fill(b, s, keys, 16)
	value := make([]byte, 256)
	order := rand.New(rand.NewSource(3)).Perm(keys)
	names := make([][]byte, min(keys, 1<<16))
	for i := range names {
		names[i] = benchKey(order[i])
	}
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu(b)
	for i := range b.N {
		t := s.Begin()
		t.Put(names[i%len(names)], value, 0)
		t.End()
		if i%batch == 0 {
			s.Seal(1, 1)
			s.Publish()
			if read {
				mustRead(b, s).Release()
			}
		}
		if i%(1<<17) == 0 { // history is not what is measured
			b.StopTimer()
			stopped := cpu(b)
			compactAll(s)
			start += cpu(b) - stopped
			b.StartTimer()
		}
	}
	reportCPU(b, start)
}

// compactAll gives up all history.
func compactAll(s *Store) {
	t := s.Begin()
	t.Compact(t.Revision())
	t.End()
	s.Seal(1, 1)
	s.Publish()
	for more := true; more; {
		more, _ = s.CompactStep()
	}
}

func BenchmarkGet(b *testing.B) {
	s := openDiscard(b)
	fill(b, s, 100_000, 16)
	names := make([][]byte, 1<<14)
	for i := range names {
		names[i] = benchKey(i * 5)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			t, _ := s.Read(0)
			if _, ok := t.Get(names[i%len(names)]); !ok {
				b.Fail()
			}
			t.Release()
		}
	})
}

func BenchmarkCount(b *testing.B) {
	s := openDiscard(b)
	fill(b, s, 1_000_000, 16)
	from, to := []byte("/registry/pods/namespace-010/"), []byte("/registry/pods/namespace-0100")
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		t, _ := s.Read(0)
		if n := t.Count(from, to); n != 10_000 {
			b.Fatal(n)
		}
		t.Release()
	}
}

// BenchmarkList reads 10,000 records of 4 KB from bbolt.
func BenchmarkList(b *testing.B) {
	for _, order := range []string{"random", "sequential"} {
		b.Run(order, func(b *testing.B) {
			e := openBolt(b, filepath.Join(b.TempDir(), "db"), false)
			s := openOn(b, e, 0)
			if order == "random" {
				fill(b, s, 10_000, 4096)
			} else {
				value := make([]byte, 4096)
				for i := range 10_000 {
					t := s.Begin()
					t.Put(fmt.Appendf(nil, "/registry/pods/%06d", i), value, 0)
					t.End()
					s.Seal(api.Index(i+1), 1)
					s.Publish()
				}
				if err := s.Flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			start := cpu(b)
			for range b.N {
				t, err := s.Read(0)
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				t.Scan([]byte("/"), []byte{0}, func(it Item) bool {
					rec, err := t.Record(it)
					if err != nil {
						b.Fatal(err)
					}
					n += len(rec)
					return true
				})
				if n < 40_000_000 {
					b.Fatal(n)
				}
				t.Release()
			}
			reportCPU(b, start)
		})
	}
}

func heapMiB() float64 {
	runtime.GC()
	runtime.GC() // what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// BenchmarkOpen restarts on a million keys of 256 bytes and reports what the
// index takes.
func BenchmarkOpen(b *testing.B) {
	for _, keys := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "db")
			e := openBolt(b, path, false)
			s := openOn(b, e, 0)
			fill(b, s, keys, 256)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			s = nil
			before := heapMiB()
			b.ResetTimer()
			for range b.N {
				start := cpu(b)
				s = openOn(b, e, 0)
				b.StopTimer()
				b.ReportMetric(float64(cpu(b)-start), "cpu-ns/op")
				b.ReportMetric(heapMiB()-before, "heap-MiB")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				s = nil
				b.StartTimer()
			}
		})
	}
}
