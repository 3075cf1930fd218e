package main

import (
	"math"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/server"
)

// securityOptions are etcd's, with two differences: --cors allows no origin
// unless told to, and --cipher-suites takes no weak ones.
var securityOptions = []option{
	path("cert-file", "Path to the TLS certificate that clients, HTTP and metrics are served with.",
		func(s *settings) *string { return &s.server.ClientTLS.CertFile }),
	path("key-file", "Path to its key.",
		func(s *settings) *string { return &s.server.ClientTLS.KeyFile }),
	path("client-cert-file", "Path to a certificate of its own for connections that this member makes; accepted as etcd accepts it.",
		func(s *settings) *string { return &s.server.ClientTLS.ClientCertFile }),
	path("client-key-file", "Path to its key.",
		func(s *settings) *string { return &s.server.ClientTLS.ClientKeyFile }),
	toggle("Security", "client-cert-auth", "Demand a certificate of every client; without --trusted-ca-file one of the system's CAs.",
		func(s *settings) *bool { return &s.server.ClientTLS.ClientCertAuth }),
	path("trusted-ca-file", "Path to the CAs of clients' certificates. When set, every client must show one.",
		func(s *settings) *string { return &s.server.ClientTLS.TrustedCAFile }),
	path("client-crl-file", "Path to a list of revoked client certificates, DER or PEM.",
		func(s *settings) *string { return &s.server.ClientTLS.CRLFile }),
	words("client-cert-allowed-hostname", "", "Comma-separated host names, one of which a client's certificate must be for.",
		func(s *settings) *[]string { return &s.server.ClientTLS.AllowedHostnames }),
	toggle("Security", "auto-tls", "Serve clients with a certificate of the member's own making when none is given.",
		func(s *settings) *bool { return &s.server.ClientTLS.Auto }),

	text("Security", "resource-authorization-mode", server.AlwaysAllow, "Who may do what at --listen-resource-urls: AlwaysAllow, or RBAC by Roles and ClusterRoles. kvd's own.",
		func(s *settings) *string { return &s.server.ResourceAuthorization }),
	path("resource-token-auth-file", "Path to bearer tokens for --listen-resource-urls, a line each: token,user,uid,\"group1,group2\". kvd's own.",
		func(s *settings) *string { return &s.server.ResourceTokenFile }),
	text("Security", "resource-service-cluster-ip-range", "10.96.0.0/12", "The range of IPv4 addresses that Services at --listen-resource-urls get their cluster IPs from. kvd's own.",
		func(s *settings) *string { return &s.server.ResourceServiceIPs }),

	path("peer-cert-file", "Path to the TLS certificate that peers are served with, and that this member shows to peers.",
		func(s *settings) *string { return &s.server.PeerTLS.CertFile }),
	path("peer-key-file", "Path to its key.",
		func(s *settings) *string { return &s.server.PeerTLS.KeyFile }),
	path("peer-client-cert-file", "Path to a certificate of its own to show to peers.",
		func(s *settings) *string { return &s.server.PeerTLS.ClientCertFile }),
	path("peer-client-key-file", "Path to its key.",
		func(s *settings) *string { return &s.server.PeerTLS.ClientKeyFile }),
	toggle("Security", "peer-client-cert-auth", "Demand a certificate of every peer; without --peer-trusted-ca-file one of the system's CAs.",
		func(s *settings) *bool { return &s.server.PeerTLS.ClientCertAuth }),
	path("peer-trusted-ca-file", "Path to the CAs of peers' certificates. When set, every peer must show one.",
		func(s *settings) *string { return &s.server.PeerTLS.TrustedCAFile }),
	path("peer-crl-file", "Path to a list of revoked peer certificates, DER or PEM.",
		func(s *settings) *string { return &s.server.PeerTLS.CRLFile }),
	words("peer-cert-allowed-cn", "", "Comma-separated common names, one of which a peer's certificate must have.",
		func(s *settings) *[]string { return &s.server.PeerTLS.AllowedCNs }),
	words("peer-cert-allowed-hostname", "", "Comma-separated host names, one of which a peer's certificate must be for.",
		func(s *settings) *[]string { return &s.server.PeerTLS.AllowedHostnames }),
	toggle("Security", "peer-skip-client-san-verification", "Do not compare a peer's address with the addresses in its certificate.",
		func(s *settings) *bool { return &s.server.PeerTLS.SkipClientSANVerify }),
	toggle("Security", "peer-auto-tls", "Encrypt between peers with certificates of the members' own making. They prove nothing.",
		func(s *settings) *bool { return &s.server.PeerTLS.Auto }),

	number("Security", "self-signed-cert-validity", "1", "Years that certificates of the member's own making last.", maxCertYears,
		func(s *settings, n uint64) { s.server.SelfSignedCertValidity = uint(n) }),
	words("cipher-suites", "", "Comma-separated cipher suites of TLS 1.2, by Go's names; empty: Go's choice. Weak ones are refused.",
		func(s *settings) *[]string { return &s.server.CipherSuites }),
	text("Security", "tls-min-version", "TLS1.2", "Least TLS version: TLS1.2 or TLS1.3.",
		func(s *settings) *string { return &s.server.TLSMinVersion }),
	text("Security", "tls-max-version", "", "Highest TLS version: TLS1.2 or TLS1.3; empty: Go's choice.",
		func(s *settings) *string { return &s.server.TLSMaxVersion }),

	words("cors", "", "Comma-separated origins whose web pages may call over HTTP; * allows all. Unlike etcd, none is allowed by default.",
		func(s *settings) *[]string { return &s.server.CORS }),
	words("host-whitelist", "*", "Comma-separated names by which clients may call over HTTP without TLS; empty or * allows all.",
		func(s *settings) *[]string { return &s.server.HostWhitelist }),
}

// maxCertYears keeps a certificate's end within what X.509 can write.
const maxCertYears = math.MaxUint8

// path is an option that names a file.
func path(name, help string, field func(*settings) *string) option {
	return text("Security", name, "", help, field)
}

// words is an option of the comma-separated kind.
func words(name, def, help string, field func(*settings) *[]string) option {
	return option{group: "Security", name: name, def: def, help: help, set: func(s *settings, v string) error {
		var list []string
		for _, word := range strings.Split(v, ",") {
			if word = strings.TrimSpace(word); word != "" && !slices.Contains(list, word) {
				list = append(list, word)
			}
		}
		*field(s) = list
		return nil
	}}
}
