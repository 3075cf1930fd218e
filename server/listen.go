package server

import (
	"fmt"
	"net"
	"net/url"
)

// grpcOverheadBytes is what a message may need beyond the request itself, as in
// etcd, so that a request slightly over its limit gets our error and not grpc's.
const grpcOverheadBytes = 512 * 1024

// checkBind refuses URLs on which nobody can listen: a domain name other than
// localhost, a missing port, a scheme that is not served.
func checkBind(u url.URL) error {
	switch u.Scheme {
	case "unix":
		return nil
	case "http":
	case "https", "unixs":
		return fmt.Errorf("scheme %q is not served yet (%s)", u.Scheme, u.String())
	default:
		return fmt.Errorf("unsupported scheme %q (%s)", u.Scheme, u.String())
	}
	host, _, err := net.SplitHostPort(u.Host)
	if err != nil {
		return err
	}
	if host == "localhost" || host == "" || net.ParseIP(host) != nil {
		return nil
	}
	return fmt.Errorf("expected IP in URL for binding (%s)", u.String())
}
