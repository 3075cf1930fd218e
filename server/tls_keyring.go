package server

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// keyring holds the certificates of one side and follows their files. It looks
// at them before each handshake and once in each refreshInterval; neither needs
// a restart or a signal.
//
// Four parts are followed apart: the server's pair, the client's pair, the CAs
// and the revocation list. What cannot be read or does not fit together (a new
// certificate whose key has not been written yet) leaves the part as it was,
// until it can: a slip during a rotation must not close the port, and a broken
// pair must not keep a revocation from counting.
type keyring struct {
	side  string // "client" or "peer"
	rules tlsRules
	log   *slog.Logger

	current  atomic.Pointer[material]
	reloads  atomic.Uint64
	failures atomic.Uint64 // reloads that failed, each new error counted once

	mu struct {
		sync.Mutex
		parts []*keyPart
	}
}

// keyPart is one group of files that is loaded together. Owned by keyring.mu.
type keyPart struct {
	name   string
	files  []string
	stamps []fileStamp // nil: read again at the next look
	sum    [sha256.Size]byte
	failed string // the error that was logged last
	load   func(m *material, contents [][]byte) error
}

// openKeyring reads all files for the first time. Now every error counts.
func openKeyring(cfg *Config, side string, set *TLS) (*keyring, error) {
	rules, err := cfg.tlsRules(set)
	if err != nil {
		return nil, err
	}
	k := &keyring{side: side, rules: rules, log: cfg.Logger}
	k.mu.parts = keyParts(set)
	k.current.Store(&material{})
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.refreshLocked(); err != nil {
		return nil, fmt.Errorf("%s TLS: %w", side, err)
	}
	return k, nil
}

func keyParts(set *TLS) []*keyPart {
	var parts []*keyPart
	if set.hasCert() {
		parts = append(parts, &keyPart{name: "certificate", files: []string{set.CertFile, set.KeyFile}, load: func(m *material, c [][]byte) error {
			pair, err := parsePair(c)
			if err != nil {
				return err
			}
			m.server = pair
			if set.ClientCertFile == "" {
				m.client = pair
			}
			return nil
		}})
	}
	if set.ClientCertFile != "" {
		parts = append(parts, &keyPart{name: "client certificate", files: []string{set.ClientCertFile, set.ClientKeyFile}, load: func(m *material, c [][]byte) (err error) {
			m.client, err = parsePair(c)
			return err
		}})
	}
	// The lists are read with the CAs beside them, which say whose lists they are.
	if set.TrustedCAFile != "" {
		parts = append(parts, &keyPart{name: "trusted CA", files: []string{set.TrustedCAFile}, load: func(m *material, c [][]byte) (err error) {
			m.roots, m.cas, err = parseCAs(c[0])
			return err
		}})
	}
	if set.CRLFile != "" {
		files := []string{set.CRLFile}
		if set.TrustedCAFile != "" {
			files = append(files, set.TrustedCAFile)
		}
		parts = append(parts, &keyPart{name: "revocation list", files: files, load: func(m *material, c [][]byte) (err error) {
			m.revoked, err = parseRevocations(c[0], m.cas)
			return err
		}})
	}
	return parts
}

func parsePair(contents [][]byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

// parseCAs reads every certificate of a PEM file. Unlike etcd it does not take
// a file without any, which would admit nobody.
func parseCAs(b []byte) (*x509.CertPool, []*x509.Certificate, error) {
	pool := x509.NewCertPool()
	var cas []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, err
		}
		pool.AddCert(ca)
		cas = append(cas, ca)
	}
	if len(cas) == 0 {
		return nil, nil, errors.New("no certificate in the file")
	}
	return pool, cas, nil
}

// fresh returns what the files hold now, as far as it can be used.
func (k *keyring) fresh() *material {
	k.refresh()
	return k.current.Load()
}

// refresh looks at the files and reports whether something changed. Errors are
// logged, once each.
func (k *keyring) refresh() (changed bool) {
	if !k.mu.TryLock() {
		return false // another handshake is at it
	}
	defer k.mu.Unlock()
	changed, _ = k.refreshLocked()
	return changed
}

func (k *keyring) refreshLocked() (changed bool, err error) {
	next := *k.current.Load()
	var errs []error
	for _, p := range k.mu.parts {
		partChanged, err := p.refresh(&next, k.rules.clock.Now())
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
		k.report(p, partChanged, err)
		changed = changed || partChanged
	}
	if changed {
		k.current.Store(&next)
	}
	return changed, errors.Join(errs...)
}

// refresh reads the part's files if they are not as they were. m keeps what it
// had if they cannot be used.
func (p *keyPart) refresh(m *material, now time.Time) (changed bool, err error) {
	stamps := make([]fileStamp, len(p.files))
	settled := true
	for i, name := range p.files {
		if stamps[i], err = stampFile(name); err != nil {
			return false, err
		}
		settled = settled && stamps[i].settled(now)
	}
	if slices.EqualFunc(stamps, p.stamps, fileStamp.same) {
		return false, nil
	}
	p.stamps = nil
	// The stamps were taken before the contents: a write in between shows as
	// another stamp at the next look.
	contents := make([][]byte, len(p.files))
	digest := sha256.New()
	for i, name := range p.files {
		if contents[i], err = readBounded(name); err != nil {
			return false, err
		}
		fmt.Fprintf(digest, "%d:", len(contents[i]))
		digest.Write(contents[i])
	}
	sum := [sha256.Size]byte(digest.Sum(nil))
	if sum != p.sum {
		if err := p.load(m, contents); err != nil {
			return false, fmt.Errorf("%s: %w", p.files[0], err)
		}
		p.sum, changed = sum, true
	}
	if settled {
		p.stamps = stamps
	}
	return changed, nil
}

// report logs what happened to a part. The first load is not worth a line.
func (k *keyring) report(p *keyPart, changed bool, err error) {
	first := k.current.Load().empty()
	switch {
	case err != nil && err.Error() != p.failed:
		p.failed = err.Error()
		k.failures.Add(1)
		if !first {
			k.log.Error("cannot reload TLS files; the ones read before still count", "side", k.side, "part", p.name, "error", err)
		}
	case err == nil && (changed || p.failed != ""):
		p.failed = ""
		if changed && !first {
			k.reloads.Add(1)
			k.log.Info("reloaded TLS files", "side", k.side, "part", p.name, "files", p.files)
		}
	}
}

func (m *material) empty() bool {
	return m.server == nil && m.client == nil && m.roots == nil && m.revoked == nil
}
