package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// ErrRevoked is wrapped when a certificate is on the revocation list.
var ErrRevoked = errors.New("certificate revoked")

// revocations are the certificates that one file of lists takes back.
//
// A list of one of our CAs revokes certificates of that CA. A list of anybody
// else revokes every certificate with that serial number, which is etcd's rule:
// it may turn away too many, never too few. The lists' signatures are not
// checked, because the file is as trusted as the file of CAs beside it.
type revocations struct {
	byIssuer map[string]map[string]struct{} // raw issuer, serial
	anywhere map[string]struct{}            // serial
	next     time.Time                      // the earliest time at which a list should have been renewed; zero: none says
}

// parseRevocations reads a list in DER, or any number of them in PEM.
func parseRevocations(b []byte, cas []*x509.Certificate) (*revocations, error) {
	r := &revocations{byIssuer: map[string]map[string]struct{}{}, anywhere: map[string]struct{}{}}
	if !bytes.Contains(b, []byte("-----BEGIN")) {
		return r, r.add(b, cas)
	}
	found := false
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		found = true
		if err := r.add(block.Bytes, cas); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, errors.New("no revocation list in the file")
	}
	return r, nil
}

func (r *revocations) add(der []byte, cas []*x509.Certificate) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	serials := r.anywhere
	for _, ca := range cas {
		if bytes.Equal(ca.RawSubject, list.RawIssuer) {
			if serials = r.byIssuer[string(list.RawIssuer)]; serials == nil {
				serials = map[string]struct{}{}
				r.byIssuer[string(list.RawIssuer)] = serials
			}
			break
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		serials[string(entry.SerialNumber.Bytes())] = struct{}{}
	}
	if !list.NextUpdate.IsZero() && (r.next.IsZero() || list.NextUpdate.Before(r.next)) {
		r.next = list.NextUpdate
	}
	return nil
}

// check refuses a connection if a certificate that was shown is revoked, or if
// every way from it to a CA leads over one.
func (r *revocations) check(s *tls.ConnectionState) error {
	if r == nil {
		return nil
	}
	if err := r.first(s.PeerCertificates); err != nil {
		return err
	}
	var err error
	for _, chain := range s.VerifiedChains {
		if err = r.first(chain); err == nil {
			return nil
		}
	}
	return err
}

func (r *revocations) first(certs []*x509.Certificate) error {
	for _, c := range certs {
		serial := c.SerialNumber.Bytes()
		_, anywhere := r.anywhere[string(serial)]
		_, here := r.byIssuer[string(c.RawIssuer)][string(serial)]
		if anywhere || here {
			return fmt.Errorf("%w: serial %x of %q", ErrRevoked, c.SerialNumber, c.Issuer.CommonName)
		}
	}
	return nil
}
