package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/keelson-io/keelson/api"
)

// Limits of the work that passwords make. A bcrypt hash of the default cost takes
// a core for about 50 ms, and whoever reaches the port can ask for one.
const (
	// maxHashing hashes are made at a time, whatever the number of cores.
	maxHashing = 2
	// maxWaiting callers wait for their turn; more are refused.
	maxWaiting = 256
	// maxVerified outcomes are remembered.
	maxVerified = 4096
)

// Passwords makes and verifies hashes, a few at a time. It remembers which
// passwords it has verified against which hash, by a keyed digest, so that a
// client that logs in again and again costs one hash. Safe for concurrent use.
type Passwords struct {
	cost  int
	key   []byte // of the digests; drawn by the process, never stored
	turn  chan struct{}
	queue chan struct{}
	decoy []byte // what the password of an unknown user is compared with

	mu struct {
		sync.Mutex
		verified map[[sha256.Size]byte]struct{}
	}
}

// ValidCost reports whether bcrypt knows the cost.
func ValidCost(cost int) bool { return cost >= bcrypt.MinCost && cost <= bcrypt.MaxCost }

// DefaultCost is etcd's cost of a hash.
const DefaultCost = bcrypt.DefaultCost

// NewPasswords hashes at the given cost, or at the default one if bcrypt does not
// know it. key is a random number of at least 16 bytes.
func NewPasswords(cost int, key []byte) *Passwords {
	if !ValidCost(cost) {
		cost = DefaultCost
	}
	p := &Passwords{cost: cost, key: key, turn: make(chan struct{}, maxHashing), queue: make(chan struct{}, maxHashing+maxWaiting)}
	p.mu.verified = map[[sha256.Size]byte]struct{}{}
	return p
}

// wait takes a turn, which the caller gives back with leave.
func (p *Passwords) wait(ctx context.Context) error {
	select {
	case p.queue <- struct{}{}:
	default:
		return api.ErrTooManyRequests
	}
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		<-p.queue
		return ctx.Err()
	}
}

func (p *Passwords) leave() {
	<-p.turn
	<-p.queue
}

// Hash makes a hash with a salt of its own.
func (p *Passwords) Hash(ctx context.Context, password string) ([]byte, error) {
	if err := p.wait(ctx); err != nil {
		return nil, err
	}
	defer p.leave()
	return bcrypt.GenerateFromPassword([]byte(password), p.cost)
}

// Verify compares a password with a hash: nil, ErrAuthFailed, or why it was not
// done. A nil hash is no user's: that takes the time of a comparison, too, so
// that nobody learns names by the clock.
func (p *Passwords) Verify(ctx context.Context, name string, hash []byte, password string) error {
	mark := p.digest(name, hash, password)
	p.mu.Lock()
	_, known := p.mu.verified[mark]
	p.mu.Unlock()
	if known {
		return nil
	}
	if err := p.wait(ctx); err != nil {
		return err
	}
	defer p.leave()
	if hash == nil {
		p.compareDecoy(password)
		return api.ErrAuthFailed
	}
	if err := bcrypt.CompareHashAndPassword(hash, []byte(password)); err != nil {
		return api.ErrAuthFailed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.verified) >= maxVerified {
		clear(p.mu.verified) // most come back; which ones is unknown
	}
	p.mu.verified[mark] = struct{}{}
	return nil
}

// compareDecoy takes as long as a comparison. The caller has a turn.
func (p *Passwords) compareDecoy(password string) {
	p.mu.Lock()
	decoy := p.decoy
	p.mu.Unlock()
	if decoy == nil {
		made, err := bcrypt.GenerateFromPassword([]byte("nobody"), p.cost)
		if err != nil {
			return // the system has no randomness; hashes will fail, too
		}
		p.mu.Lock()
		p.decoy, decoy = made, made
		p.mu.Unlock()
	}
	if err := bcrypt.CompareHashAndPassword(decoy, []byte(password)); err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return // too long a password: no user has one
	}
}

// digest names a verified combination. It has the stored hash in it, so a changed
// password is unknown again.
func (p *Passwords) digest(name string, hash []byte, password string) [sha256.Size]byte {
	m := hmac.New(sha256.New, p.key)
	for _, part := range [][]byte{[]byte(name), hash, []byte(password)} {
		m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		m.Write(part)
	}
	return [sha256.Size]byte(m.Sum(nil))
}
