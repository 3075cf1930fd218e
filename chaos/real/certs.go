//go:build linux

package real

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority gives certificates to members and clients, in a folder.
type authority struct {
	dir    string
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	serial int64
	client *tls.Config // of the harness
}

// fitness is what may be wrong with a certificate.
type fitness int

const (
	good fitness = iota
	expired
	nameless // it is for another address
	stranger // another authority has signed it
)

func newAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &authority{dir: dir, key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "chaos"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if err := os.WriteFile(a.path("ca.pem"), pemOf("CERTIFICATE", der), 0o600); err != nil {
		return nil, err
	}
	if err := a.issue(0, good); err != nil {
		return nil, err
	}
	own, err := tls.LoadX509KeyPair(a.path("0.pem"), a.path("0.key"))
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	a.client = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}
	return a, err
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issue writes a seat's certificate and key, or those of clients, whose seat is 0.
// Each file is replaced in one step; who reads between the two finds that they do
// not belong together, and keeps what it has.
func (a *authority) issue(seat int, what fitness) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	a.serial++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.serial), Subject: pkix.Name{CommonName: fmt.Sprint("m", seat)}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{address(seat).AsSlice()},
	}
	by, signer := a.cert, a.key
	switch what {
	case expired:
		c.NotAfter = time.Now().Add(-time.Minute)
	case nameless:
		c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)}
	case stranger:
		by, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	var errs []error
	for name, text := range map[string][]byte{"key": pemOf("EC PRIVATE KEY", secret), "pem": pemOf("CERTIFICATE", der)} {
		to := a.path(fmt.Sprintf("%d.%s", seat, name))
		errs = append(errs, os.WriteFile(to+".new", text, 0o600), os.Rename(to+".new", to))
	}
	return errors.Join(errs...)
}

// args are a member's flags.
func (a *authority) args(seat int) (out []string) {
	cert, key, ca := a.path(fmt.Sprintf("%d.pem", seat)), a.path(fmt.Sprintf("%d.key", seat)), a.path("ca.pem")
	for _, of := range []string{"", "peer-"} {
		out = append(out, "--"+of+"cert-file="+cert, "--"+of+"key-file="+key, "--"+of+"trusted-ca-file="+ca, "--"+of+"client-cert-auth=true")
	}
	return out
}

// shown is the serial number of the certificate that a member shows to a new
// connection with the harness's own or another configuration.
func (a *authority) shown(m *Member, cfg *tls.Config) (int64, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: asked}, "tcp", m.endpoint(), cfg)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	// A server refuses a client's certificate after the handshake, as the client sees it.
	if err := conn.SetDeadline(time.Now().Add(asked)); err != nil {
		return 0, err
	}
	if _, err := conn.Write([]byte("GET /version HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")); err != nil {
		return 0, err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return 0, err
	}
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func (c *Cluster) scheme() string {
	if c.certs != nil {
		return "https"
	}
	return "http"
}
