package engine

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// sampleFile makes a file with branches, long values, empty and inline buckets.
func sampleFile(t testing.TB, keys int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	e, err := OpenBolt(path, BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < keys; {
		batch := &Batch{}
		for range 100 {
			value := bytes.Repeat([]byte{byte(n)}, n%90)
			if n%997 == 0 {
				value = bytes.Repeat([]byte{byte(n)}, 10_000)
			}
			batch.Put(Key, fmt.Appendf(nil, "key-%09d", n), value)
			n++
		}
		batch.Put(Meta, []byte("index"), fmt.Append(nil, n))
		batch.Put(Alarm, []byte("alarm"), nil)
		if err := e.Commit(batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// contents are all pairs of a file, by bucket.
func contents(t testing.TB, path string) (string, error) {
	t.Helper()
	e, err := OpenBolt(path, BoltOptions{NoSync: true})
	if err != nil {
		return "", err
	}
	defer e.Close()
	v, err := e.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Release()
	var out bytes.Buffer
	for _, b := range Buckets {
		v.Scan(b, nil, nil, func(k, value []byte) bool {
			fmt.Fprintf(&out, "%s %q %d\n", b, k, len(value))
			return true
		})
	}
	return out.String(), nil
}

// TestDamageOfTheFile damages a file in many places. Either OpenBolt says so, or
// the damage is inside keys and values, or where nothing is stored: then there are
// as many pairs as before, with values of the same sizes, and nothing panics.
func TestDamageOfTheFile(t *testing.T) {
	path := sampleFile(t, 3000)
	before, err := contents(t, path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	found, unseen := 0, 0
	for round := range 600 {
		b := bytes.Clone(whole)
		at := rng.IntN(len(b))
		what := ""
		switch round % 5 {
		case 0:
			what = fmt.Sprintf("bit flipped at %d", at)
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			what = fmt.Sprintf("sector %d zeroed", at/512)
			clear(b[at&^511:][:512])
		case 2:
			page := at &^ 4095
			at = page + rng.IntN(64) // the page's head and first elements
			what = fmt.Sprintf("byte changed at %d", at)
			b[at] ^= byte(1 + rng.IntN(255))
		case 3:
			what = fmt.Sprintf("cut to %d", at)
			b = b[:at]
		case 4:
			from := rng.IntN(len(b)/4096) * 4096
			what = fmt.Sprintf("page %d written over page %d", from/4096, at/4096)
			copy(b[at&^4095:][:4096], b[from:])
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		after, err := contents(t, path)
		switch {
		case errors.Is(err, ErrDamaged):
			found++
		case err != nil:
			t.Fatalf("%s: %v", what, err)
		case bytes.Count([]byte(after), []byte("\n")) == bytes.Count([]byte(before), []byte("\n")):
			unseen++
		case at < 2*4096:
			// The newest meta page is gone: the state before it counts.
		default:
			t.Fatalf("%s: pairs are missing, and nothing says so", what)
		}
	}
	if found < 200 || unseen < 50 {
		t.Errorf("%d damages were found and %d not", found, unseen)
	}
}

func TestDamageOfBothMetaPages(t *testing.T) {
	path := sampleFile(t, 300)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"both heads zeroed": func(b []byte) []byte { clear(b[:8192]); return b },
		"empty":             func([]byte) []byte { return nil },
		"one page":          func(b []byte) []byte { return b[:4096] },
		"half":              func(b []byte) []byte { return b[:len(b)/2] },
		"text":              func([]byte) []byte { return []byte("no database") },
	} {
		if err := os.WriteFile(path, change(bytes.Clone(b)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenBolt(path, BoltOptions{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkCheckBolt(b *testing.B) {
	path := sampleFile(b, 300_000)
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		if err := checkBolt(path); err != nil {
			b.Fatal(err)
		}
	}
}
