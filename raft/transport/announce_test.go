package transport

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestGRPCAnnounce(t *testing.T) {
	ask := func(m *member) (string, error) {
		conn, err := DialURL(t.Context(), m.url)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Ask(t.Context(), conn)
		return string(b), err
	}
	a := startMember(t, 1, memberOptions{announce: func(context.Context) ([]byte, error) { return []byte("us"), nil }})
	if got, err := ask(a); err != nil || got != "us" {
		t.Errorf("asked a stranger's way: %q, %v", got, err)
	}
	b := startMember(t, 2, memberOptions{announce: func(context.Context) ([]byte, error) {
		return nil, status.Error(codes.Unavailable, "not now")
	}})
	if _, err := ask(b); status.Code(err) != codes.Unavailable {
		t.Errorf("a failed announcement: %v", err)
	}
	if _, err := ask(startMember(t, 3, memberOptions{})); status.Code(err) != codes.Unimplemented {
		t.Errorf("nothing to announce: %v", err)
	}
	cc := connection(t, a)
	for _, protocol := range [][]string{nil, {"0"}, {protocolVersion, protocolVersion}} {
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{keyProtocol: protocol})
		err := cc.Invoke(ctx, announceMethod, &mem.BufferSlice{mem.SliceBuffer(nil)}, new(mem.BufferSlice))
		if err == nil || !strings.Contains(err.Error(), ErrWrongProtocol.Error()) {
			t.Errorf("protocol %q: %v", protocol, err)
		}
	}
}

// TestGRPCForgottenMember: a member that comes back with another data directory
// is not heard and not spoken to, and is told why.
func TestGRPCForgottenMember(t *testing.T) {
	a, b := startMember(t, 1, memberOptions{incarnation: 10}), startMember(t, 2, memberOptions{incarnation: 21})
	known := b.peer()
	known.Incarnation = 20
	a.SetPeers([]Peer{known})
	b.SetPeers([]Peer{a.peer()})
	b.await(t, 1, "refused by 1: "+ErrForgotten.Error())
	a.awaitLog(t, errStranger.Error())
	a.Send(2, []*raftpb.Message{heartbeat(1, 2, 5)})
	b.Send(1, []*raftpb.Message{heartbeat(2, 1, 7)})
	a.await(t, 1, "unreachable 2")
	b.await(t, 1, "unreachable 1")
	if a.count("message")+b.count("message")+a.count("up")+b.count("up") != 0 {
		t.Errorf("they talk:\n%s\n%s", a.recorder, b.recorder)
	}
	if a.count("refused") != 0 {
		t.Errorf("the one with its data was refused:\n%s", a.recorder)
	}
	known.Incarnation = 21
	a.SetPeers([]Peer{known})
	b.await(t, 1, "up 1")
}

// TestGRPCForgottenLater: when a member learns by which directory the cluster knows
// another one, it hears it no more if that one has another.
func TestGRPCForgottenLater(t *testing.T) {
	a, b := startMember(t, 1, memberOptions{incarnation: 10}), startMember(t, 2, memberOptions{incarnation: 21})
	a.SetPeers([]Peer{b.peer()})
	b.SetPeers([]Peer{a.peer()})
	b.await(t, 1, "up 1")
	b.Send(1, []*raftpb.Message{heartbeat(2, 1, 7)})
	a.await(t, 1, "message MsgHeartbeat from 2")
	known := b.peer()
	known.Incarnation = 20
	a.SetPeers([]Peer{known})
	b.await(t, 1, "refused by 1: "+ErrForgotten.Error())
	// A handshake of before may only now come to its stream.
	late := &inboundStream{mark: 21, done: make(chan struct{}), ended: make(chan struct{})}
	if err := a.replaceInbound(inboundKey{2, control}, late); !errors.Is(err, ErrForgotten) {
		t.Errorf("a stream that was let in before: %v", err)
	}
	a.Refuse(2)
	if err := a.replaceInbound(inboundKey{2, control}, &inboundStream{mark: 20, done: make(chan struct{})}); !errors.Is(err, ErrRemoved) {
		t.Errorf("a stream of a member that was removed meanwhile: %v", err)
	}
}

// TestGRPCHearsNobodyBeforeItsPeers: until it has its peers, and with them the marks of
// their directories, a member takes nobody for who he says he is.
func TestGRPCHearsNobodyBeforeItsPeers(t *testing.T) {
	a, b := startMember(t, 1, memberOptions{incarnation: 10, peerless: true}), startMember(t, 2, memberOptions{incarnation: 21})
	b.SetPeers([]Peer{a.peer()})
	b.awaitLog(t, "the member is starting")
	known := b.peer()
	known.Incarnation = 20
	a.SetPeers([]Peer{known})
	b.await(t, 1, "refused by 1: "+ErrForgotten.Error())
	if a.count("up")+b.count("up") != 0 {
		t.Errorf("they met:\n%s\n%s", a.recorder, b.recorder)
	}
}

// TestGRPCRefusedAfterRestart: a removal is known from the store, not only from
// a peer that disappears.
func TestGRPCRefusedAfterRestart(t *testing.T) {
	a, b := startMember(t, 1, memberOptions{}), startMember(t, 2, memberOptions{})
	a.Refuse(2)
	b.SetPeers([]Peer{a.peer()})
	b.await(t, 1, "refused by 1: "+ErrRemoved.Error())
	if _, err := b.GRPC.Call(t.Context(), 1, 1, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a call of a removed member: %v", err)
	}
	if !b.ActiveSince(1).IsZero() {
		t.Error("a refused connection counts as active")
	}
}
