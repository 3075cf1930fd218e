package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
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

// usedPages are the pages of a file's trees, by what bbolt says they are.
func usedPages(t *testing.T, path string) map[int]string {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	pages := map[int]string{}
	err = db.View(func(tx *bbolt.Tx) error {
		for id := 2; ; {
			page, err := tx.Page(id)
			if err != nil || page == nil {
				return err
			}
			if page.Type == "leaf" || page.Type == "branch" {
				pages[id] = page.Type
			}
			id += page.OverflowCount + 1
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// TestEveryPageIsChecked, however the trees are shared out: its head, and the order of its
// last key and the next page's first.
func TestEveryPageIsChecked(t *testing.T) {
	for _, keys := range []int{3000, 30_000} {
		path := sampleFile(t, keys)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		isFound := func(at int64) bool {
			var b [1]byte
			f.ReadAt(b[:], at)
			f.WriteAt([]byte{b[0] ^ 0x80}, at)
			defer f.WriteAt(b[:], at)
			return errors.Is(checkBolt(path), ErrDamaged)
		}
		if err := checkBolt(path); err != nil {
			t.Fatal(err)
		}
		pages := usedPages(t, path)
		unordered := 0
		for id, kind := range pages {
			page := int64(id) * 4096
			if !isFound(page) {
				t.Errorf("of %d keys: damage in the head of page %d of %d, a %s, is not found", keys, id, len(pages), kind)
			}
			b := make([]byte, 4096)
			f.ReadAt(b, page)
			last := int64(pageHead + elementBytes*(int(binary.LittleEndian.Uint16(b[10:]))-1))
			if kind == "branch" || binary.LittleEndian.Uint32(b[last:]) != 0 {
				continue
			}
			if !isFound(page + last + int64(binary.LittleEndian.Uint32(b[last+4:]))) {
				unordered++ // the last page of a bucket: nothing bounds its last key
			}
		}
		if unordered > len(Buckets) {
			t.Errorf("of %d keys: a greater last key is not found in %d of %d pages", keys, unordered, len(pages))
		}
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

// freelistOf returns where the list of free pages begins in a file, or -1.
func freelistOf(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &boltChecker{file: f}
	_, list, err := c.meta()
	if err != nil {
		t.Fatal(err)
	}
	if list == noFreelist {
		return -1
	}
	return int64(list) * c.page
}

// TestFreePagesAreListed: a short list is there after each commit, a long one after
// Close, and what was free is free again.
func TestFreePagesAreListed(t *testing.T) {
	path := sampleFile(t, 3000)
	e := openBolt(t, path)
	put := func(n int, size int) {
		t.Helper()
		batch := &Batch{}
		batch.Put(Key, fmt.Appendf(nil, "more-%09d", n), make([]byte, size))
		if err := e.Commit(batch); err != nil {
			t.Fatal(err)
		}
	}
	put(1, 10)
	if freelistOf(t, path) < 0 {
		t.Error("a commit left no list of free pages")
	}
	put(2, (maxFreelist+100)*4096)
	put(2, 10)
	put(3, 10)
	if at := freelistOf(t, path); at >= 0 {
		t.Errorf("a commit wrote a list of more than %d pages", maxFreelist)
	}
	before := e.Stats()
	if before.Allocated-before.InUse < maxFreelist*4096 {
		t.Fatalf("too little is free: %+v", before)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if freelistOf(t, path) < 0 {
		t.Error("Close left no list of free pages")
	}
	e = openBolt(t, path)
	after := e.Stats()
	if off := after.InUse - before.InUse; off < -64*4096 || off > 64*4096 {
		t.Errorf("%d bytes are in use, before closing %d", after.InUse, before.InUse)
	}
	put(4, (maxFreelist/2)*4096)
	if grown := e.Stats().Allocated; grown > after.Allocated {
		t.Errorf("the file grew from %d to %d bytes instead of using what is free", after.Allocated, grown)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamageOfTheFreelist: a page must not be given away that is in use, or twice.
func TestDamageOfTheFreelist(t *testing.T) {
	path := sampleFile(t, 3000)
	at := freelistOf(t, path)
	if at < 0 {
		t.Fatal("there is no list of free pages")
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ids := at + pageHead
	for name, change := range map[string]func(b []byte){
		"a page that is in use": func(b []byte) { copy(b[ids:], whole[at:at+8]) },
		"a page twice":          func(b []byte) { copy(b[ids:ids+8], whole[ids+8:]) },
		"a page beyond the end": func(b []byte) { b[ids+6] = 1 },
		"a meta page":           func(b []byte) { clear(b[ids : ids+8]) },
		"more than there are":   func(b []byte) { b[at+11] = 0xfe },
		"another kind of page":  func(b []byte) { b[at+8] = flagLeaf },
	} {
		b := bytes.Clone(whole)
		change(b)
		if err := os.WriteFile(path, b, 0o600); err != nil {
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

// FuzzBolt opens any bytes as a database: they are refused, or all of them can be
// read.
func FuzzBolt(f *testing.F) {
	whole, err := os.ReadFile(sampleFile(f, 50))
	if err != nil {
		f.Fatal(err)
	}
	pages := uint16(len(whole) / os.Getpagesize())
	for at := range pages {
		f.Add(at, uint16(8), []byte{0xff}) // a page's kind
	}
	f.Add(uint16(0), uint16(0), whole[:64])
	f.Fuzz(func(t *testing.T, page, at uint16, damage []byte) {
		damaged := append([]byte(nil), whole...)
		copy(damaged[int(page%pages)*os.Getpagesize()+int(at)%os.Getpagesize():], damage)
		file := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(file, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := OpenBolt(file, BoltOptions{NoSync: true})
		if err != nil {
			return
		}
		defer b.Close()
		v, err := b.View()
		if err != nil {
			t.Fatal(err)
		}
		defer v.Release()
		for _, bucket := range Buckets {
			v.Scan(bucket, nil, nil, func(_, _ []byte) bool { return true })
		}
	})
}
