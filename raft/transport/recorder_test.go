package transport

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
)

// recorder is a Handler that notes what it is told, one line an event.
type recorder struct {
	call func(ctx context.Context, from api.MemberID, kind uint8, payload []byte) ([]byte, error)
	hold func(m *raftpb.Message) // called by Message first, to play a slow member

	mu struct {
		sync.Mutex
		changed  chan struct{}
		log      []string
		messages []*raftpb.Message
		path     string // of the last snapshot
	}
}

func newRecorder() *recorder {
	r := &recorder{}
	r.mu.changed = make(chan struct{})
	return r
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.log = append(r.mu.log, fmt.Sprintf(format, args...))
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}

func (r *recorder) Message(m *raftpb.Message) {
	if r.hold != nil {
		r.hold(m)
	}
	r.mu.Lock()
	r.mu.messages = append(r.mu.messages, m)
	r.mu.Unlock()
	r.note("message %s from %x index %d", m.GetType(), m.GetFrom(), m.GetIndex())
}

func (r *recorder) Forwarded(from api.MemberID, term api.Term, batch []byte) {
	r.note("forwarded from %s term %d %q", from, term, batch)
}
func (r *recorder) Unreachable(id api.MemberID) { r.note("unreachable %s", id) }
func (r *recorder) PeerDown(id api.MemberID)    { r.note("down %s", id) }
func (r *recorder) PeerUp(id api.MemberID)      { r.note("up %s", id) }
func (r *recorder) Refused(by api.MemberID, err error) {
	r.note("refused by %s: %v", by, err)
}

func (r *recorder) SnapshotSent(to api.MemberID, ok bool) {
	r.note("snapshot to %s sent %v", to, ok)
}

func (r *recorder) SnapshotReceived(m *raftpb.Message, meta SnapshotMeta, path string) {
	r.mu.Lock()
	r.mu.path = path
	r.mu.Unlock()
	r.note("snapshot %d/%d from %x", meta.Index, meta.Term, m.GetFrom())
}

func (r *recorder) Call(ctx context.Context, from api.MemberID, kind uint8, payload []byte) ([]byte, error) {
	if r.call != nil {
		return r.call(ctx, from, kind, payload)
	}
	return fmt.Appendf(nil, "%s/%d/%s", from, kind, payload), nil
}

// await waits until the log holds a line that starts with prefix at least n times.
func (r *recorder) await(t testing.TB, n int, prefix string) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		found, changed := r.countLocked(prefix), r.mu.changed
		r.mu.Unlock()
		if found >= n {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("%q: seen %d times, want %d; log:\n%s", prefix, found, n, r)
		}
	}
}

func (r *recorder) countLocked(prefix string) int {
	n := 0
	for _, line := range r.mu.log {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

func (r *recorder) count(prefix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.countLocked(prefix)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.mu.log, "\n")
}

// received returns the indexes of the messages so far.
func (r *recorder) received() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var indexes []uint64
	for _, m := range r.mu.messages {
		indexes = append(indexes, m.GetIndex())
	}
	return indexes
}

func heartbeat(from, to api.MemberID, index uint64) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: proto.Uint64(uint64(from)), To: proto.Uint64(uint64(to)),
		Term: proto.Uint64(1), Index: proto.Uint64(index),
	}
}

func appendMessage(from, to api.MemberID, index uint64, data ...[]byte) *raftpb.Message {
	m := &raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: proto.Uint64(uint64(from)), To: proto.Uint64(uint64(to)),
		Term: proto.Uint64(1), LogTerm: proto.Uint64(1), Index: proto.Uint64(index), Commit: proto.Uint64(index),
	}
	for i, d := range data {
		m.Entries = append(m.Entries, &raftpb.Entry{Term: proto.Uint64(1), Index: proto.Uint64(index + 1 + uint64(i)), Data: d})
	}
	return m
}
