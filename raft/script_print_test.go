package raft

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
)

// This file has the words of the transcripts, and the network between their
// members. index/term[commands] is an entry, and a leader's mark is an empty one.

func describeTask(t appendTask) string {
	if t.msg == nil && t.release == 0 {
		return "mark the log"
	}
	if t.msg == nil {
		return fmt.Sprintf("release the log up to %d", t.release)
	}
	var parts []string
	if t.msg.GetTerm() != 0 {
		parts = append(parts, fmt.Sprintf("term %d vote %d commit %d", t.msg.GetTerm(), t.msg.GetVote(), t.msg.GetCommit()))
	}
	if s := t.msg.GetSnapshot(); !etcdraft.IsEmptySnap(s) {
		parts = append(parts, fmt.Sprintf("snapshot %d", s.GetMetadata().GetIndex()))
	}
	if len(t.msg.GetEntries()) > 0 {
		parts = append(parts, describeEntries(t.msg.GetEntries()))
	}
	for _, r := range t.msg.GetResponses() {
		if r.GetType() != raftpb.MsgStorageAppendResp {
			parts = append(parts, fmt.Sprintf("then %s to %d", describe(r), r.GetTo()))
		}
	}
	return strings.Join(parts, ", ")
}

func describeEntries(entries []*raftpb.Entry) string {
	var parts []string
	for _, e := range entries {
		what := "mark"
		if e.GetType() != raftpb.EntryNormal {
			what = "change"
		} else if f, err := decodeFrame(e.GetData()); err == nil {
			what = ""
			for _, c := range f.commands {
				what += string(c.Body) + " "
			}
			what = shorten(strings.TrimSpace(what))
		}
		parts = append(parts, fmt.Sprintf("%d/%d[%s]", e.GetIndex(), e.GetTerm(), what))
	}
	return strings.Join(parts, " ")
}

func shorten(text string) string {
	if len(text) <= 60 {
		return text
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:20], len(text))
}

func describe(m *raftpb.Message) string {
	b := strings.TrimPrefix(m.GetType().String(), "Msg")
	if m.GetTerm() != 0 {
		b += fmt.Sprintf(" term %d", m.GetTerm())
	}
	if m.GetType() == raftpb.MsgApp || m.GetIndex() != 0 {
		b += fmt.Sprintf(" at %d", m.GetIndex())
	}
	if len(m.GetEntries()) > 0 && m.GetType() == raftpb.MsgApp {
		b += " " + describeEntries(m.GetEntries())
	}
	if m.GetCommit() != 0 {
		b += fmt.Sprintf(" commit %d", m.GetCommit())
	}
	if m.GetReject() {
		b += " rejected"
	}
	return b
}

// scriptTransport keeps what is sent until the script delivers it.
type scriptTransport struct{ m *scripted }

func (t scriptTransport) put(to api.MemberID, p parcel) {
	if cut := t.m.s.cut; cut != 0 && (cut == to || cut == t.m.id) {
		t.m.s.printf("%s>%s is lost: %s", t.m.id, to, p.text)
		p.giveUp()
		return
	}
	t.m.s.printf("%s>%s sent: %s", t.m.id, to, p.text)
	link := [2]api.MemberID{t.m.id, to}
	t.m.s.links[link] = append(t.m.s.links[link], p)
}

func (t scriptTransport) Start(transport.Handler) error      { return nil }
func (t scriptTransport) SetPeers([]transport.Peer)          {}
func (t scriptTransport) Close() error                       { return nil }
func (t scriptTransport) ActiveSince(api.MemberID) time.Time { return time.Time{} }
func (t scriptTransport) Refuse(...api.MemberID)             {}
func (t scriptTransport) Call(context.Context, api.MemberID, uint8, []byte) ([]byte, error) {
	return nil, io.ErrClosedPipe
}

func (t scriptTransport) Send(to api.MemberID, msgs []*raftpb.Message) {
	for _, m := range msgs {
		t.put(to, parcel{text: describe(m), call: func(h handler) { h.Message(proto.Clone(m).(*raftpb.Message)) }})
	}
}

func (t scriptTransport) Forward(to api.MemberID, term api.Term, batch []byte) bool {
	r := frameReader{b: batch}
	r.arrayLen()
	prev := r.uint(1<<64 - 1)
	f, err := decodeFrame(r.b)
	if err != nil {
		t.m.s.t.Fatal(err)
	}
	var bodies []string
	for _, c := range f.commands {
		bodies = append(bodies, string(c.Body))
	}
	text := fmt.Sprintf("frame %d after %d for term %d [%s]", f.seq, prev, term, strings.Join(bodies, " "))
	t.put(to, parcel{text: text, call: func(h handler) { h.Forwarded(t.m.id, term, bytes.Clone(batch)) }})
	return true
}

func (t scriptTransport) SendSnapshot(to api.MemberID, msg *raftpb.Message, snap transport.Snapshot) {
	var data bytes.Buffer
	_, _ = snap.WriteTo(&data)
	meta := snap.Meta()
	told := func(ok bool) { handler{t.m.node}.SnapshotSent(to, ok) }
	t.put(to, parcel{fmt.Sprintf("snapshot of %d/%d", meta.Index, meta.Term), func(h handler) {
		path := fmt.Sprintf("snap/%d", meta.Index)
		if err := writeFile(t.m.s.members[to].disk, path, data.Bytes()); err != nil {
			t.m.s.t.Fatal(err)
		}
		h.SnapshotReceived(proto.Clone(msg).(*raftpb.Message), meta, path)
		told(true)
	}, func() { told(false) }})
}
