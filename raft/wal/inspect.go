package wal

import (
	"errors"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Record is one record as Inspect shows it.
type Record struct {
	Segment uint64
	Offset  int64
	Size    int64
	Kind    string // entry, cut, state, pad or footer
	A, B    uint64 // see the package comment for their meaning in each kind
	Type    uint8  // Raft's type of an entry
	Length  int    // of the body
	// Of states and footers:
	Synced int64
	Last   api.Index
	State  HardState
}

// SegmentFile is one file as Inspect shows it.
type SegmentFile struct {
	Name     string
	Size     int64
	Reset    bool
	Position Position // the log's end when the segment began
	PrevEnd  int64
}

// Report is what Inspect found.
type Report struct {
	Identity  Identity
	Segments  []SegmentFile
	Void      []string // names of segments before the last reset
	Recovered Recovered
	Unproven  int // complete batches that Open would write again
}

// Inspect reads the log in dir as Open does, but changes nothing. It calls fn
// for each record, in order, up to the first that is not complete. On damage it
// returns what it could read and a *DamageError.
func Inspect(fs vfs.FS, dir string, fn func(Record)) (*Report, error) {
	l := &loader{fs: fs, dir: dir, table: newTable(Position{}), visit: fn}
	err := l.load()
	r := &Report{Identity: l.id, Recovered: *l.recovered(), Unproven: l.tail.batches, Void: l.void}
	if err == nil {
		r.Recovered.Last = l.tail.last.Index
	}
	for _, f := range l.files {
		r.Segments = append(r.Segments, SegmentFile{
			Name: f.name, Size: f.size, Reset: f.reset,
			Position: f.position, PrevEnd: f.prevEnd,
		})
	}
	return r, errors.Join(err, l.close())
}
