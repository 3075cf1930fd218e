package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// snapshotStatus is what a file holds, in the JSON of etcdutl; the last two
// fields are ours.
type snapshotStatus struct {
	Hash      uint32 `json:"hash"`
	Revision  int64  `json:"revision"`
	TotalKey  int    `json:"totalKey"`
	TotalSize int64  `json:"totalSize"`
	Version   string `json:"version"`
	SHA256    string `json:"sha256"` // "verified", or "none"
	Leases    int    `json:"leases"`
}

var errDigest = errors.New("it does not match the SHA-256 at its end")

const nextSnapshot = "take another snapshot; `kvctl snapshot save` checks what it receives"

// snapshotInfo proves a file whole, as far as it says, and reads all of it.
func (a *app) snapshotInfo(ctx context.Context, file string) (s snapshotStatus, err error) {
	did := "inspect " + file
	if s.SHA256, err = a.verifyDigest(ctx, file); err != nil {
		if errors.Is(err, errDigest) {
			return s, checkFailed(did, err, nextSnapshot)
		}
		return s, fileFailed(did, err)
	}
	if err = s.read(file); err == nil {
		err = s.index(file)
	}
	if err != nil {
		return s, checkFailed(did, err, nextSnapshot)
	}
	return s, nil
}

// verifyDigest compares a file with the digest at its end, if it has one.
func (a *app) verifyDigest(ctx context.Context, file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if st.Size()%512 != sha256.Size {
		return "none", nil
	}
	bar := a.progress("verifying")
	defer bar.done()
	size, sum, done := st.Size()-sha256.Size, sha256.New(), int64(0)
	for done < size {
		n, err := io.CopyN(sum, f, min(1<<20, size-done))
		if err = errors.Join(err, ctx.Err()); err != nil {
			return "", err
		}
		done += n
		bar.at(done, size)
	}
	digest, err := io.ReadAll(f)
	if err == nil && !bytes.Equal(sum.Sum(nil), digest) {
		err = errDigest
	}
	return "verified", err
}

// read hashes all buckets as etcdutl does.
func (s *snapshotStatus) read(file string) error {
	db, err := bbolt.Open(file, 0o400, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	table := crc32.MakeTable(crc32.Castagnoli)
	return db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		s.TotalSize = tx.Size()
		if meta := tx.Bucket([]byte("meta")); meta != nil {
			s.Version = string(meta.Get([]byte("storageVersion")))
		}
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			s.Hash = crc32.Update(s.Hash, table, name)
			return b.ForEach(func(k, v []byte) error {
				s.Hash = crc32.Update(crc32.Update(s.Hash, table, k), table, v)
				return nil
			})
		})
	})
}

// index builds the index that a member would, which verifies every record.
func (s *snapshotStatus) index(file string) error {
	e, err := engine.OpenBolt(file, engine.BoltOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer e.Close()
	store, err := mvcc.Open(mvcc.Config{Clock: clock.System(), Engine: e})
	if err != nil {
		return err
	}
	defer store.Close()
	stats := store.Stats()
	s.Revision, s.TotalKey, s.Leases = int64(store.Revision()), stats.Keys, stats.Leases
	return nil
}

func (a *app) snapshotStatus(ctx context.Context, file string) error {
	s, err := a.snapshotInfo(ctx, file)
	if err != nil {
		return err
	}
	row := []string{fmt.Sprintf("%x", s.Hash), fmt.Sprint(s.Revision), fmt.Sprint(s.TotalKey), size(s.TotalSize), s.Version, s.SHA256, fmt.Sprint(s.Leases)}
	return a.show(result{
		value: s, head: []string{"HASH", "REVISION", "KEYS", "SIZE", "VERSION", "SHA-256", "LEASES"}, rows: [][]string{row},
		simple: func(w io.Writer) { fmt.Fprintln(w, strings.Join(row[:5], ", ")) },
	})
}
