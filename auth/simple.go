package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// Simple tokens verify themselves on every member, without a table of tokens:
//
//	token   = base64url(payload ‖ mac)
//	payload = version, issued (unix seconds, 8 bytes), nonce (8 bytes), user name
//	mac     = first 16 bytes of HMAC-SHA256(secret, cluster ‖ hash ‖ payload)
//
// The secret is part of the replicated state (State.Secret). It is drawn when
// authentication is switched on, and dropped when it is switched off, which ends
// all tokens, as in etcd. The user's bcrypt hash is in the mac, so a token ends
// with the password it was given for, on every member at the same entry of the
// log, and a user who was deleted and made again does not revive old tokens. The
// cluster's id is in it, so a snapshot that is restored elsewhere does not carry
// valid tokens along.
//
// A token lives for the TTL after its issue and, on the member that it is used
// with, for the TTL after its last use: as long as etcd's on that member. Members
// compare the issue with their own clocks; a skew lengthens or shortens the TTL.
// etcd's tokens are gone after a restart; these are not.
//
// What a token tells about its user is the name, as a JWT does.
type simpleTokens struct {
	clock   clock.Clock
	ttl     time.Duration
	cluster api.ClusterID
	nonce   func() uint64

	mu struct {
		sync.RWMutex
		seen map[string]*seenToken // by token; verified before
	}
}

// seenToken is a token that was verified with a secret and a hash. While these
// are the user's, it need not be verified again.
type seenToken struct {
	user   string
	issued time.Time
	secret []byte
	hash   []byte
	used   atomic.Int64 // unix nanoseconds
}

const (
	simpleVersion = 1
	macBytes      = 16
	headBytes     = 1 + 8 + 8
	// maxSeen tokens are remembered. A forgotten one works until its issue is too
	// long ago.
	maxSeen = 16384
	// maxToken bounds what is decoded at all.
	maxToken = 2*maxName + 64
)

func newSimpleTokens(cfg TokenConfig) *simpleTokens {
	t := &simpleTokens{clock: cfg.Clock, ttl: cfg.TTL, cluster: cfg.Cluster, nonce: cfg.Nonce}
	if t.ttl <= 0 {
		t.ttl = DefaultTokenTTL
	}
	t.mu.seen = map[string]*seenToken{}
	return t
}

func (t *simpleTokens) NeedsSecret() bool { return true }
func (t *simpleTokens) Pinned() bool      { return false }

func (t *simpleTokens) mac(secret, hash, payload []byte) []byte {
	m := hmac.New(sha256.New, secret)
	head := binary.BigEndian.AppendUint64(nil, uint64(t.cluster))
	m.Write(binary.BigEndian.AppendUint64(head, uint64(len(hash))))
	m.Write(hash)
	m.Write(payload)
	return m.Sum(nil)[:macBytes]
}

func (t *simpleTokens) Assign(s *State, name string) (string, error) {
	u := s.users[name]
	if u == nil || s.secret == nil {
		return "", api.ErrAuthFailed
	}
	b := []byte{simpleVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(t.clock.Wall().Unix()))
	b = binary.BigEndian.AppendUint64(b, t.nonce())
	b = append(b, name...)
	b = append(b, t.mac(s.secret, u.row.Password, b)...)
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// Resolve gives the principal the state's own auth revision: as in etcd, a simple
// token survives changes of users and roles.
func (t *simpleTokens) Resolve(s *State, token string) (Principal, bool) {
	t.mu.RLock()
	seen := t.mu.seen[token]
	t.mu.RUnlock()
	now := t.clock.Now()
	if seen == nil {
		if seen = t.verify(s, token); seen == nil {
			return Principal{}, false
		}
	}
	u := s.users[seen.user]
	if u == nil || s.secret == nil || !bytes.Equal(seen.secret, s.secret) || !bytes.Equal(seen.hash, u.row.Password) {
		return Principal{}, false
	}
	if now.Sub(seen.issued) >= t.ttl && now.Sub(time.Unix(0, seen.used.Load())) >= t.ttl {
		return Principal{}, false
	}
	seen.used.Store(now.UnixNano())
	t.remember(token, seen)
	return Principal{Name: seen.user, Revision: s.Revision}, true
}

// verify checks the mac; nil if it is wrong.
func (t *simpleTokens) verify(s *State, token string) *seenToken {
	if len(token) > maxToken || s.secret == nil {
		return nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < headBytes+macBytes || b[0] != simpleVersion {
		return nil
	}
	payload, mac := b[:len(b)-macBytes], b[len(b)-macBytes:]
	name := string(payload[headBytes:])
	u := s.users[name]
	if u == nil || !hmac.Equal(mac, t.mac(s.secret, u.row.Password, payload)) {
		return nil
	}
	issued := time.Unix(int64(binary.BigEndian.Uint64(payload[1:])), 0)
	return &seenToken{user: name, issued: issued, secret: s.secret, hash: u.row.Password}
}

func (t *simpleTokens) remember(token string, seen *seenToken) {
	t.mu.RLock()
	known := t.mu.seen[token] == seen
	t.mu.RUnlock()
	if known {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mu.seen) >= maxSeen {
		t.forgetLocked()
	}
	t.mu.seen[token] = seen
}

// forgetLocked drops what is over, or everything if nothing is.
func (t *simpleTokens) forgetLocked() {
	now := t.clock.Now()
	for token, seen := range t.mu.seen {
		if now.Sub(time.Unix(0, seen.used.Load())) >= t.ttl {
			delete(t.mu.seen, token)
		}
	}
	if len(t.mu.seen) >= maxSeen*3/4 {
		clear(t.mu.seen)
	}
}
