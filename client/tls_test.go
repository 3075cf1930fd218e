package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keelson-io/keelson/client"
	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/server/certtest"
)

// TestTLS: a member that wants certificates gets them, by address and by URL;
// without them, and without trust, calls fail and say why.
func TestTLS(t *testing.T) {
	ca, dir := certtest.New(t, "ca"), t.TempDir()
	pair := ca.Issue("both", "127.0.0.1")
	m := startMember(t, func(c *server.Config) {
		c.ClientTLS.CertFile, c.ClientTLS.KeyFile = pair.Write(t, dir, "server")
		c.ClientTLS.TrustedCAFile, c.ClientTLS.ClientCertAuth = certtest.Write(t, dir, "ca.crt", ca.PEM()), true
		for _, urls := range [][]url.URL{c.ListenClientURLs, c.AdvertiseClientURLs} {
			urls[0].Scheme = "https"
		}
	})
	own, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	good := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}
	for _, tc := range []struct {
		endpoint string
		tls      *tls.Config
		want     string
	}{
		{m.addr, good, ""},
		{"https://" + m.addr, good, ""},
		{"https://" + m.addr, nil, "certificate signed by unknown authority"},
		{"https://" + m.addr, &tls.Config{RootCAs: roots}, "the last attempts failed"}, // by an alert, or by a connection that was closed under the request
		{"http://" + m.addr, good, "error reading"},                                    // plain text to a listener of TLS
	} {
		c := open(t, client.Config{Endpoints: []string{tc.endpoint}, TLS: tc.tls})
		ctx, cancel := context.WithTimeout(testContext(t), time.Second)
		_, err := c.Count(ctx, client.All())
		cancel()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s with %v: %v, want %q", tc.endpoint, tc.tls != nil, err, tc.want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for name, ok := range map[string]bool{
		"127.0.0.1:2379": true, "[::1]:2379": true, "http://host:1": true, "https://host:1": true, "unix:///run/kvd.sock": true, "unixs:///run/kvd.sock": true,
		"": false, "host": false, "ftp://host:1": false, "http://ho st:1": false,
	} {
		c, err := client.New(client.Config{Endpoints: []string{name}})
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			c.Close()
		}
	}
	if _, err := client.New(client.Config{}); err == nil {
		t.Error("a client without endpoints")
	}
}
