package mvcc

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

var (
	fillPath  = flag.String("fill", "", "write a database of fill-keys keys of fill-size bytes to this path, for measurements")
	fillKeys  = flag.Int("fill-keys", 1_000_000, "see fill")
	probePath = flag.String("probe", "", "open this database and print the cost")
	fillSize  = flag.Int("fill-size", 256, "see fill")
)

// TestFill makes a database for measurements by hand.
func TestFill(t *testing.T) {
	if *fillPath == "" {
		t.Skip("only when asked for with -fill")
	}
	e := openBolt(t, *fillPath, false)
	s := openOn(t, e, 0)
	fill(t, s, *fillKeys, *fillSize)
	mustCheck(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestProbe opens such a database and prints what that costs.
func TestProbe(t *testing.T) {
	if *probePath == "" {
		t.Skip("only when asked for with -probe")
	}
	e := openBolt(t, *probePath, false)
	start, began := cpu(t), time.Now()
	s := openOn(t, e, 0)
	t.Logf("open: %v, %v of processor time, GOMAXPROCS %d", time.Since(began), time.Duration(cpu(t)-start), runtime.GOMAXPROCS(0))
	t.Logf("memory after open: %s", anonymous(t))
	t.Logf("heap: %.0f MiB, estimate %d MiB", heapMiB(), s.Stats().IndexBytes>>20)
	debug.FreeOSMemory()
	t.Logf("memory at rest: %s", anonymous(t))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func anonymous(t *testing.T) string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "RssAnon") {
			return strings.TrimSpace(line)
		}
	}
	return "unknown"
}
