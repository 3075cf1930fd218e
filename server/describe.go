package server

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// What logs say of a request: which keys it reads and writes, which lease, user,
// role or member it is about. Never values, passwords or tokens.

const (
	// maxDescribed bounds the ranges that are told of one request.
	maxDescribed = 16
	// maxKeyText bounds a key in a log, in bytes.
	maxKeyText = 256
)

// describedKeys is a range of a request.
type describedKeys struct {
	Do  string `json:"do"` // read or write
	Key string `json:"key"`
	End string `json:"end,omitempty"`
}

// describe tells what a request is about.
func describe(req any) []slog.Attr {
	var attrs []slog.Attr
	if r, ok := req.(accessor); ok {
		keys, rest := describeKeys(r)
		if len(keys) > 0 {
			attrs = append(attrs, slog.Any("keys", keys))
		}
		if rest {
			attrs = append(attrs, slog.Bool("more-keys", true))
		}
		return attrs
	}
	if r, ok := req.(interface{ about() any }); ok {
		req = r.about()
	}
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, keyText([]byte(value))))
		}
	}
	if r, ok := req.(interface{ GetName() string }); ok {
		text("name", r.GetName())
	}
	if r, ok := req.(interface{ GetName() []byte }); ok { // of locks and elections
		text("name", string(r.GetName()))
	}
	if r, ok := req.(interface{ GetUser() string }); ok {
		text("of-user", r.GetUser())
	}
	if r, ok := req.(interface{ GetRole() string }); ok {
		text("role", r.GetRole())
	}
	if r, ok := req.(interface{ GetPeerURLs() []string }); ok {
		attrs = append(attrs, slog.Any("peer-urls", r.GetPeerURLs()))
	}
	return append(attrs, describeNumbers(req)...)
}

func describeNumbers(req any) (attrs []slog.Attr) {
	switch r := req.(type) {
	case *pb.AuthRoleGrantPermissionRequest:
		if p := r.GetPerm(); p != nil {
			attrs = append(attrs, slog.Any("keys", []describedKeys{{p.PermType.String(), keyText(p.Key), keyText(p.RangeEnd)}}))
		}
	case *pb.AuthRoleRevokePermissionRequest:
		attrs = append(attrs, slog.Any("keys", []describedKeys{{"", keyText(r.Key), keyText(r.RangeEnd)}}))
	case *pb.LeaseGrantRequest:
		attrs = append(attrs, slog.Int64("lease", r.ID), slog.Int64("ttl", r.TTL))
	case *pb.LeaseTimeToLiveRequest:
		attrs = append(attrs, slog.Int64("lease", r.ID))
	case *pb.CompactionRequest:
		attrs = append(attrs, slog.Int64("revision", r.Revision))
	case *pb.AlarmRequest:
		attrs = append(attrs, slog.String("action", r.Action.String()), slog.String("alarm", r.Alarm.String()))
	case *pb.DowngradeRequest:
		attrs = append(attrs, slog.String("action", r.Action.String()), slog.String("target", keyText([]byte(r.Version))))
	case *pb.MoveLeaderRequest:
		attrs = append(attrs, slog.Uint64("id", r.TargetID))
	case interface{ GetID() uint64 }:
		attrs = append(attrs, slog.Uint64("id", r.GetID()))
	}
	return attrs
}

// about is the message that a request was decoded to.
func (r *message[M]) about() any     { return &r.m }
func (r *grantRequest) about() any   { return &r.LeaseGrantRequest }
func (r *ttlRequest) about() any     { return &r.LeaseTimeToLiveRequest }
func (r *revokeRequest) about() any  { return &pb.LeaseTimeToLiveRequest{ID: int64(r.id)} }
func (r *compactRequest) about() any { return &pb.CompactionRequest{Revision: r.revision} }

// errEnough ends a walk over the accesses of a request.
var errEnough = errors.New("enough")

// describeKeys lists what a request does with keys; rest says that there is more.
func describeKeys(r accessor) (out []describedKeys, rest bool) {
	err := r.accesses(func(a access) error {
		if len(out) == maxDescribed {
			return errEnough
		}
		do := "read"
		switch a.kind {
		case writeKeys:
			do = "write"
		case useLease, seeLease:
			return nil
		}
		out = append(out, describedKeys{do, keyText(a.key), keyText(a.end)})
		return nil
	})
	return out, err == errEnough
}

// keyText is a key for people: as it is if it is text, else in hexadecimal, and
// cut when it is long.
func keyText(key []byte) string {
	cut := ""
	if len(key) > maxKeyText {
		key, cut = key[:maxKeyText], "…"
		for i := 0; i < utf8.UTFMax && !utf8.Valid(key); i++ {
			key = key[:len(key)-1]
		}
	}
	if !utf8.Valid(key) {
		return "0x" + hex.EncodeToString(key) + cut
	}
	return string(key) + cut
}
