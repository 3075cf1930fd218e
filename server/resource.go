package server

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keelson-io/keelson/server/resource"
)

// resourceTokens are the bearer tokens of a file, in Kubernetes' form: a line each,
// token,user,uid[,"group1,group2"].
type resourceTokens map[string]resource.User

// Lookup implements resource.Tokens. Tokens are long random strings: what a map's
// timing tells of a hash does not help to guess one.
func (t resourceTokens) Lookup(token string) (*resource.User, bool) {
	u, ok := t[token]
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
	tokens, err := s.cfg.resourceTokens()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	s.parts.resource = resource.New(resource.Config{
		Store: resourceStore{s}, Clock: s.clock, Logger: s.log, Random: fillRandom, Tokens: tokens,
		Authorize: s.cfg.ResourceAuthorization == RBAC,
	})
	return nil
}

func (c *Config) resourceTokens() (resourceTokens, error) {
	if c.ResourceTokenFile == "" {
		return nil, nil
	}
	b, err := readBounded(c.ResourceTokenFile)
	if err != nil {
		return nil, fmt.Errorf("--resource-token-auth-file: %w", err)
	}
	tokens := resourceTokens{}
	lines := csv.NewReader(bytes.NewReader(b))
	lines.FieldsPerRecord = -1
	for {
		row, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return tokens, nil
		}
		if err != nil || len(row) < 3 || row[0] == "" || row[1] == "" {
			return nil, fmt.Errorf("--resource-token-auth-file: a line is not token,user,uid (%v)", err)
		}
		u := resource.User{Name: row[1], UID: row[2]}
		if len(row) > 3 {
			u.Groups = strings.Split(row[3], ",")
		}
		tokens[row[0]] = u
	}
}
