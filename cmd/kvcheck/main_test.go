package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// makeDir makes a data directory with a small store and returns both paths.
func makeDir(t *testing.T) (dir, db string) {
	t.Helper()
	dir = t.TempDir()
	db = filepath.Join(dir, "member", "snap", "db")
	if err := os.MkdirAll(filepath.Dir(db), 0o700); err != nil {
		t.Fatal(err)
	}
	e, err := engine.OpenBolt(db, engine.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := mvcc.Open(mvcc.Config{Clock: clock.System(), Engine: e})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		x := s.Begin()
		x.Put(fmt.Appendf(nil, "key-%d", i%20), fmt.Appendf(nil, "value number %d", i), 0)
		x.End()
		s.Seal(api.Index(i+1), 1)
		s.Publish()
	}
	if err := errors.Join(s.Flush(), s.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	return dir, db
}

func TestKvcheck(t *testing.T) {
	dir, db := makeDir(t)
	var out, errOut bytes.Buffer
	if code := run([]string{dir}, &out, &errOut); code != exitClean {
		t.Fatalf("exit %d: %s", code, errOut.String())
	}
	for _, want := range []string{"index 50, term 1", "revision   51, compacted 0", "keys       20, revisions 50", "clean"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if code := run([]string{"-q", db}, &out, &errOut); code != exitClean || out.Len() > 0 {
		t.Errorf("quiet: exit %d, %q", code, out.String())
	}
	if code := run(nil, &out, &errOut); code != exitUsage {
		t.Errorf("no path: exit %d", code)
	}
	if code := run([]string{filepath.Join(dir, "absent")}, &out, &errOut); code != exitUnreadable {
		t.Errorf("no file: exit %d", code)
	}
	// A record that rotted on disk.
	file, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(file, []byte("value number 33"))
	file[at+3] ^= 4
	if err := os.WriteFile(db, file, 0o600); err != nil {
		t.Fatal(err)
	}
	errOut.Reset()
	if code := run([]string{db}, &out, &errOut); code != exitDamaged || !strings.Contains(errOut.String(), "checksum of revision 35.0") {
		t.Errorf("damage: exit %d: %s", code, errOut.String())
	}
}
