package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// This file makes the certificates of --auto-tls and --peer-auto-tls. Nobody
// can verify them: they keep listeners out, and nobody else.

// autoDir is where they are kept, in etcd's place below the data directory.
func autoDir(dataDir, side string) string { return filepath.Join(dataDir, "fixtures", side) }

const (
	autoYear = 365 * 24 * time.Hour
	// autoRenew: a certificate that ends sooner is replaced at the next start.
	autoRenew = 30 * 24 * time.Hour
)

// makeAutoCert returns the files of a self-made certificate, made now unless
// good ones of an earlier start exist.
func makeAutoCert(dir string, hosts []string, years uint, now time.Time) (certFile, keyFile string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if autoCertGood(certFile, keyFile, now) {
		return certFile, keyFile, nil
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return "", "", err
	}
	cert, key, err := selfSigned(hosts, now, now.Add(time.Duration(years)*autoYear))
	if err != nil {
		return "", "", err
	}
	// The key first: after a crash in between, the pair does not fit and is made
	// anew.
	if err := writePrivate(keyFile, key); err != nil {
		return "", "", err
	}
	return certFile, keyFile, writePrivate(certFile, cert)
}

func autoCertGood(certFile, keyFile string, now time.Time) bool {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	return err == nil && pair.Leaf != nil && now.Add(autoRenew).Before(pair.Leaf.NotAfter)
}

// writePrivate replaces a file by one that only its owner reads.
func writePrivate(name string, b []byte) error {
	next := name + ".new"
	if err := os.Remove(next); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return err
	}
	return os.Rename(next, name)
}

func selfSigned(hosts []string, from, to time.Time) (cert, key []byte, err error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"keelson"}},
		NotBefore: from.Add(-time.Hour), NotAfter: to, // other clocks may be behind
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if h != "" {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}

// autoTLS returns set with a self-made certificate if it asks for one.
func (c *Config) autoTLS(side string, set TLS, urls ...[]url.URL) (TLS, error) {
	if !set.Auto || set.hasCert() {
		return set, nil
	}
	var hosts []string
	for _, u := range slices.Concat(urls...) {
		if h := u.Hostname(); h != "" && !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	cert, key, err := makeAutoCert(autoDir(c.DataDir, side), hosts, c.SelfSignedCertValidity, c.Clock.Now())
	if err != nil {
		return set, fmt.Errorf("make a certificate for %s: %w", side, err)
	}
	if side == "peer" {
		// Others cannot verify what they make for themselves, so nobody is asked.
		set = TLS{Auto: true}
	}
	set.CertFile, set.KeyFile = cert, key
	return set, nil
}
