package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
)

// checkAddress holds a peer's certificate against the address that it connects
// from, as etcd does: if the certificate names addresses or hosts, one of them
// must be the peer's.
func checkAddress(ctx context.Context, cert *x509.Certificate, remote net.Addr) error {
	if remote.Network() == "unix" || len(cert.IPAddresses)+len(cert.DNSNames) == 0 {
		return nil
	}
	host, _, err := net.SplitHostPort(remote.String())
	if err != nil {
		return err
	}
	if len(cert.IPAddresses) > 0 {
		err := cert.VerifyHostname(host)
		if err == nil || len(cert.DNSNames) == 0 {
			return err
		}
	}
	found, err := namesHost(ctx, cert.DNSNames, host)
	if found {
		return nil
	}
	why := ""
	if err != nil {
		why = " (" + err.Error() + ")"
	}
	return fmt.Errorf("tls: %q does not match any of DNSNames %q%s", host, cert.DNSNames, why)
}

// namesHost asks the DNS whether address is one of the hosts, first by the
// address's own names, then by the hosts' addresses.
func namesHost(ctx context.Context, hosts []string, address string) (bool, error) {
	names, err := net.DefaultResolver.LookupAddr(ctx, address)
	for _, name := range names {
		name = strings.TrimSuffix(name, ".")
		for _, h := range hosts {
			if rest, wild := strings.CutPrefix(h, "*"); wild && strings.HasPrefix(rest, ".") && strings.HasSuffix(name, rest) || h == name {
				return true, nil
			}
		}
	}
	for _, h := range hosts {
		if strings.HasPrefix(h, "*.") {
			continue
		}
		addresses, lookupErr := net.DefaultResolver.LookupHost(ctx, h)
		if lookupErr != nil {
			err = lookupErr
		}
		if slices.Contains(addresses, address) {
			return true, nil
		}
	}
	return false, err
}
