package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// testCA makes a CA and a configuration for both sides from it.
func testCA(t *testing.T) *tls.Config {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: key}},
		RootCAs:      pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}
}

func TestGRPCOverTLS(t *testing.T) {
	cfg := testCA(t)
	a, b := startMember(t, 1, memberOptions{tls: cfg}), startMember(t, 2, memberOptions{tls: cfg})
	connect(t, a, b)
	a.Send(2, []*raftpb.Message{heartbeat(1, 2, 5)})
	b.await(t, 1, "message MsgHeartbeat from 1 index 5")
	a.SendSnapshot(2, envelope(1, 2), newTestSnapshot(100))
	a.await(t, 1, "snapshot to 2 sent true")
	b.Close()
	a.await(t, 1, "down 2")
}

// Neither another CA nor plain text gets in, and nothing falls back to it.
func TestGRPCTLSRefuses(t *testing.T) {
	b := startMember(t, 2, memberOptions{tls: testCA(t)})
	stranger := startMember(t, 1, memberOptions{tls: testCA(t)})
	stranger.SetPeers([]Peer{b.peer()})
	stranger.awaitLog(t, "cannot connect to a peer")
	plain := startMember(t, 3, memberOptions{})
	plain.SetPeers([]Peer{b.peer()})
	plain.awaitLog(t, "needs TLS, which is not configured")
	half := startMember(t, 4, memberOptions{})
	half.SetPeers([]Peer{{ID: 2, URLs: []string{"http" + b.url[len("https"):]}}})
	half.awaitLog(t, "cannot connect to a peer")
	if stranger.count("up")+plain.count("up")+half.count("up") != 0 {
		t.Fatal("a member without the right certificate is connected")
	}
}
