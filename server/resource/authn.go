package resource

import (
	"net/http"
	"strings"
)

// User is who sends a request.
type User struct {
	Name   string
	UID    string
	Groups []string
}

// Tokens tells who has a bearer token.
type Tokens interface {
	// Lookup returns the user of a token. It must take no longer for one token
	// than for another.
	Lookup(token string) (*User, bool)
}

// Names that identities get from the server itself.
const (
	anonymousUser   = "system:anonymous"
	groupKnown      = "system:authenticated"
	groupUnknown    = "system:unauthenticated"
	groupMasters    = "system:masters"
	unauthorizedMsg = "Unauthorized"
)

// authenticate says who sends the request: the holder of a verified client
// certificate (CN is the name, O are the groups), of a bearer token, or nobody.
func (c *call) authenticate() (*User, error) {
	if token, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer "); ok {
		if c.layer.cfg.Tokens != nil {
			if u, ok := c.layer.cfg.Tokens.Lookup(strings.TrimSpace(token)); ok {
				return &User{u.Name, u.UID, append(append([]string(nil), u.Groups...), groupKnown)}, nil
			}
		}
		if c.layer.cfg.Authorize {
			return nil, &Failure{Code: http.StatusUnauthorized, Reason: "Unauthorized", Message: unauthorizedMsg}
		}
	}
	if c.r.TLS != nil {
		for _, chain := range c.r.TLS.VerifiedChains {
			if len(chain) > 0 && chain[0].Subject.CommonName != "" {
				s := chain[0].Subject
				return &User{s.CommonName, "", append(append([]string(nil), s.Organization...), groupKnown)}, nil
			}
		}
	}
	return &User{anonymousUser, "", []string{groupUnknown}}, nil
}
