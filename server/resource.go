package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server/resource"
)

// tokenFile are the bearer tokens of a file, in Kubernetes' form: a line each,
// token,user,uid[,"group1,group2"]. The file is looked at again and again; one that
// cannot be used leaves the tokens as they were.
type tokenFile struct {
	file    keyPart // owned by who opens it, then by follow
	log     *slog.Logger
	current atomic.Pointer[map[string]resource.User]
}

func newTokenFile(name string, log *slog.Logger) *tokenFile {
	t := &tokenFile{log: log}
	t.file = keyPart{name: "tokens", files: []string{name}, load: func(_ *material, contents [][]byte) error {
		tokens, err := parseTokens(contents[0])
		if err == nil {
			t.current.Store(&tokens)
		}
		return err
	}}
	return t
}

// follow takes over what the file holds until ctx ends.
func (t *tokenFile) follow(ctx context.Context, c clock.Clock) {
	failed := ""
	every(ctx, c, refreshInterval, func(context.Context) {
		changed, err := t.file.refresh(nil, c.Now())
		switch {
		case err != nil && err.Error() != failed:
			failed = err.Error()
			t.log.Error("cannot read bearer tokens again; the ones read before still count", "error", err)
		case err == nil:
			failed = ""
		}
		if changed {
			t.log.Info("read bearer tokens again", "file", t.file.files[0])
		}
	})
}

// Lookup implements resource.Tokens. Tokens are long random strings: what a map's
// timing tells of a hash does not help to guess one.
func (t *tokenFile) Lookup(token string) (*resource.User, bool) {
	u, ok := (*t.current.Load())[token]
	return &u, ok
}

// Modes of --resource-authorization-mode, as kube-apiserver calls them.
const (
	AlwaysAllow = "AlwaysAllow"
	RBAC        = "RBAC"
)

// checkResource refuses settings of the resource layer that cannot work.
func (c *Config) checkResource() error {
	switch c.ResourceAuthorization {
	case "", AlwaysAllow, RBAC:
	default:
		return fmt.Errorf("--resource-authorization-mode must be %s or %s, not %q", AlwaysAllow, RBAC, c.ResourceAuthorization)
	}
	return nil
}

// openResource makes the resource layer, if it is wanted.
func (s *Server) openResource() error {
	if len(s.cfg.ListenResourceURLs) == 0 {
		return nil
	}
	serviceIPs, err := s.cfg.resourceServiceIPs()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	cfg := resource.Config{
		Store: resourceStore{s}, Clock: s.clock, Logger: s.log, Random: fillRandom,
		Authorize: s.cfg.ResourceAuthorization == RBAC, ServiceIPs: serviceIPs,
	}
	if file := s.cfg.ResourceTokenFile; file != "" {
		tokens := newTokenFile(file, s.log)
		if _, err := tokens.file.refresh(nil, s.clock.Now()); err != nil {
			return fmt.Errorf("%w: --resource-token-auth-file: %w", ErrConfig, err)
		}
		cfg.Tokens, s.parts.tokens = tokens, tokens
	}
	s.parts.resource = resource.New(cfg)
	return nil
}

// defaultServiceIPs is kubeadm's range of the cluster IPs of Services.
const defaultServiceIPs = "10.96.0.0/12"

func (c *Config) resourceServiceIPs() (netip.Prefix, error) {
	p, err := netip.ParsePrefix(cmp.Or(c.ResourceServiceIPs, defaultServiceIPs))
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 30 {
		return p, fmt.Errorf("--resource-service-cluster-ip-range must be a range of IPv4 addresses of 8 to 30 bits, not %q", c.ResourceServiceIPs)
	}
	return p.Masked(), nil
}

func parseTokens(b []byte) (map[string]resource.User, error) {
	tokens := map[string]resource.User{}
	lines := csv.NewReader(bytes.NewReader(b))
	lines.FieldsPerRecord = -1
	for {
		row, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return tokens, nil
		}
		if err != nil || len(row) < 3 || row[0] == "" || row[1] == "" {
			return nil, fmt.Errorf("a line is not token,user,uid (%v)", err)
		}
		u := resource.User{Name: row[1], UID: row[2]}
		if len(row) > 3 {
			u.Groups = strings.Split(row[3], ",")
		}
		tokens[row[0]] = u
	}
}
