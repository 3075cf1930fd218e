package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"testing"

	"github.com/keelson-io/keelson/server/certtest"
)

// Certs are an authority and what it signed for the members of a cluster. Members
// that have them speak TLS with clients and with each other, and ask clients for
// a certificate.
type Certs struct {
	CA  string // file
	dir string

	authority *certtest.Authority
	pool      *x509.CertPool
	members   [2]string // certificate and key
}

// MemberName is the common name of the members' certificate.
const MemberName = "member"

// raiser lets package certtest, made for tests, work for commands, too.
type raiser struct{ testing.TB }

func (raiser) Helper()           {}
func (raiser) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// NewCerts makes an authority and the members' certificate, as files in dir.
func NewCerts(dir string) (*Certs, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	t := raiser{}
	c := &Certs{dir: dir, authority: certtest.New(t, "compat"), pool: x509.NewCertPool()}
	c.CA = certtest.Write(t, dir, "ca.crt", c.authority.PEM())
	c.pool.AppendCertsFromPEM(c.authority.PEM())
	c.members[0], c.members[1] = c.authority.Issue(MemberName, "127.0.0.1", "localhost").Write(t, dir, "member")
	return c, nil
}

// Client signs a certificate for a user, as files and as a client's settings.
func (c *Certs) Client(user string) (cert, key string, config *tls.Config, err error) {
	pair := c.authority.Issue(user)
	cert, key = pair.Write(raiser{}, c.dir, "client-"+user)
	own, err := tls.X509KeyPair(pair.Cert, pair.Key)
	return cert, key, &tls.Config{RootCAs: c.pool, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}, err
}

// Server is the members' certificate and its key, as files. It is good for
// whatever else listens on loopback.
func (c *Certs) Server() (cert, key string) { return c.members[0], c.members[1] }

func (c *Certs) args() []string {
	return []string{
		"--cert-file", c.members[0], "--key-file", c.members[1], "--trusted-ca-file", c.CA, "--client-cert-auth",
		"--peer-cert-file", c.members[0], "--peer-key-file", c.members[1], "--peer-trusted-ca-file", c.CA, "--peer-client-cert-auth",
	}
}
