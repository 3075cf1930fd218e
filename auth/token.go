package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// Tokens makes and verifies what a login yields. Safe for concurrent use.
type Tokens interface {
	// Assign makes a token for a user of the state, whose password was verified.
	Assign(s *State, user string) (string, error)
	// Resolve tells whose token it is; false if it is nobody's in this state.
	Resolve(s *State, token string) (Principal, bool)
	// NeedsSecret: tokens are made with the cluster's secret.
	NeedsSecret() bool
	// Pinned: a token's principal has the auth revision of the login for ever.
	Pinned() bool
}

// TokenConfig is what NewTokens needs to know.
type TokenConfig struct {
	Spec    string        // etcd's --auth-token: "simple", "jwt,option=value…", or nothing
	TTL     time.Duration // of simple tokens that are not used
	Cluster api.ClusterID // simple tokens of another cluster do not work here
	Clock   clock.Clock
	Nonce   func() uint64                     // tells tokens of the same moment apart
	Read    func(name string) ([]byte, error) // reads a key file
	Warn    func(text string, args ...any)
}

// ErrTokenSpec is wrapped when Spec is not understood.
var ErrTokenSpec = errors.New("auth: invalid auth options")

// DefaultTokenTTL is etcd's.
const DefaultTokenTTL = 5 * time.Minute

// NewTokens makes the provider that the spec names.
func NewTokens(cfg TokenConfig) (Tokens, error) {
	kind, options, err := parseTokenSpec(cfg.Spec)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "simple":
		return newSimpleTokens(cfg), nil
	case "jwt":
		return newSignedTokens(cfg, options)
	case "":
		return noTokens{}, nil
	}
	return nil, fmt.Errorf("%w: unknown type of token %q", ErrTokenSpec, kind)
}

func parseTokenSpec(spec string) (kind string, options map[string]string, err error) {
	words := strings.Split(spec, ",")
	options = map[string]string{}
	for _, w := range words[1:] {
		name, value, ok := strings.Cut(w, "=")
		if _, twice := options[name]; !ok || twice || strings.Contains(value, "=") {
			return "", nil, fmt.Errorf("%w: %q", ErrTokenSpec, w)
		}
		options[name] = value
	}
	return words[0], options, nil
}

// noTokens is for clusters whose clients show certificates only.
type noTokens struct{}

func (noTokens) Assign(*State, string) (string, error)    { return "", api.ErrAuthFailed }
func (noTokens) Resolve(*State, string) (Principal, bool) { return Principal{}, false }
func (noTokens) NeedsSecret() bool                        { return false }
func (noTokens) Pinned() bool                             { return false }

// Fingerprint names a token in a log without giving it away.
func Fingerprint(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:6])
}
