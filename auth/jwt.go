package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// signedTokens are JSON web tokens with etcd's claims: username, revision, exp.
// They carry the auth revision of the login, so any change of users or roles
// makes the next request fail with an old revision, and the client log in again.
// Members that have the same keys accept each other's; one with a public key only
// verifies what others signed.
type signedTokens struct {
	clock  clock.Clock
	method jwt.SigningMethod
	ttl    time.Duration
	sign   any // nil: verify only
	verify any
	parser *jwt.Parser
}

func newSignedTokens(cfg TokenConfig, options map[string]string) (*signedTokens, error) {
	t := &signedTokens{clock: cfg.Clock, ttl: DefaultTokenTTL}
	for name := range options {
		switch name {
		case "sign-method", "pub-key", "priv-key", "ttl":
		default:
			cfg.Warn("unknown option of JWT ignored", "option", name)
		}
	}
	if v := options["ttl"]; v != "" {
		ttl, err := time.ParseDuration(v)
		if err != nil || ttl <= 0 {
			return nil, fmt.Errorf("%w: ttl %q is no positive duration", ErrTokenSpec, v)
		}
		t.ttl = ttl
	}
	if t.method = jwt.GetSigningMethod(options["sign-method"]); t.method == nil {
		return nil, fmt.Errorf("%w: sign-method %q is unknown", ErrTokenSpec, options["sign-method"])
	}
	var files [2][]byte
	for i, option := range []string{"pub-key", "priv-key"} {
		if name := options[option]; name != "" {
			b, err := cfg.Read(name)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrTokenSpec, option, err)
			}
			files[i] = b
		}
	}
	if err := t.keys(files[0], files[1]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTokenSpec, err)
	}
	t.parser = jwt.NewParser(jwt.WithTimeFunc(cfg.Clock.Now), jwt.WithValidMethods([]string{t.method.Alg()}))
	return t, nil
}

// asAny turns a parser's own key type into the general one.
func asAny[K any](parse func([]byte) (K, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return parse(b) }
}

// keys reads the keys of the method. Both given must belong together.
func (t *signedTokens) keys(public, private []byte) error {
	var pair struct{ private, public func([]byte) (any, error) }
	switch t.method.(type) {
	case *jwt.SigningMethodHMAC:
		if len(private) == 0 {
			return errors.New("auth: missing key data")
		}
		t.sign, t.verify = private, private
		return nil
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		pair.private, pair.public = asAny(jwt.ParseRSAPrivateKeyFromPEM), asAny(jwt.ParseRSAPublicKeyFromPEM)
	case *jwt.SigningMethodECDSA:
		pair.private, pair.public = asAny(jwt.ParseECPrivateKeyFromPEM), asAny(jwt.ParseECPublicKeyFromPEM)
	case *jwt.SigningMethodEd25519:
		pair.private, pair.public = asAny(jwt.ParseEdPrivateKeyFromPEM), asAny(jwt.ParseEdPublicKeyFromPEM)
	default:
		return fmt.Errorf("unsupported signing method: %s", t.method.Alg())
	}
	var err error
	if len(public) > 0 {
		if t.verify, err = pair.public(public); err != nil {
			return err
		}
	}
	if len(private) > 0 {
		if t.sign, err = pair.private(private); err != nil {
			return err
		}
		own := publicOf(t.sign)
		if t.verify != nil && !own.Equal(t.verify) {
			return errors.New("auth: public and private keys don't match")
		}
		t.verify = own
	}
	if t.verify == nil {
		return errors.New("auth: missing key data")
	}
	return nil
}

// publicKey is what all public keys of the standard library can do.
type publicKey interface{ Equal(crypto.PublicKey) bool }

func publicOf(private any) publicKey {
	switch k := private.(type) {
	case *rsa.PrivateKey:
		return &k.PublicKey
	case *ecdsa.PrivateKey:
		return &k.PublicKey
	case ed25519.PrivateKey:
		return k.Public().(ed25519.PublicKey)
	}
	panic(fmt.Sprintf("auth: a private key of type %T", private)) // the parsers above return no other
}

func (t *signedTokens) NeedsSecret() bool { return false }
func (t *signedTokens) Pinned() bool      { return true }

func (t *signedTokens) Assign(s *State, name string) (string, error) {
	if t.sign == nil {
		return "", api.ErrVerifyOnly
	}
	return jwt.NewWithClaims(t.method, jwt.MapClaims{
		"username": name,
		"revision": s.Revision,
		"exp":      t.clock.Wall().Add(t.ttl).Unix(),
	}).SignedString(t.sign)
}

func (t *signedTokens) Resolve(_ *State, token string) (Principal, bool) {
	parsed, err := t.parser.Parse(token, func(*jwt.Token) (any, error) { return t.verify, nil })
	if err != nil || !parsed.Valid {
		return Principal{}, false
	}
	claims, ok := parsed.Claims.(jwt.MapClaims)
	if !ok {
		return Principal{}, false
	}
	name, named := claims["username"].(string)
	rev, dated := claims["revision"].(float64)
	if !named || !dated || rev < 1 {
		return Principal{}, false
	}
	return Principal{Name: name, Revision: uint64(rev)}, true
}
