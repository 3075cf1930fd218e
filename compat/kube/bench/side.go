package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/keelson-io/keelson/compat/bench"
	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/kube"
	"github.com/keelson-io/keelson/server/porttest"
)

// side is a server of the Kubernetes API with all that it consists of.
type side struct {
	name      string
	target    kube.Target
	store     *cluster.Cluster
	processes []*cluster.Process // all whose CPU and memory count
	tls       *tls.Config
	client    *http.Client
	padding   int    // what a pod needs to have podBytes
	ready     func() // a row calls it when what is measured begins
	turn      int    // counts what was written, so that no two writes are equal
}

// Names of the sides.
const (
	Left  = "kube-apiserver+etcd"
	Right = "kvd"
)

// storeFlags of both stores: room for 50,000 pods and their history.
var storeFlags = []string{"--quota-backend-bytes=8589934592", "--enable-pprof"}

func startSide(ctx context.Context, name, dir string) (*side, error) {
	s := &side{name: name, ready: func() {}}
	certs, err := cluster.NewCerts(filepath.Join(dir, "certs"))
	if err != nil {
		return s, err
	}
	if name == Left {
		err = s.startAPIServer(ctx, dir, certs)
	} else {
		err = s.startLayer(ctx, dir, certs)
	}
	if err != nil {
		return s, err
	}
	pem, err := os.ReadFile(certs.CA)
	if err != nil {
		return s, err
	}
	s.tls = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	s.tls.RootCAs.AppendCertsFromPEM(pem)
	s.client = s.newClient()
	return s, s.calibrate(ctx)
}

func (s *side) startAPIServer(ctx context.Context, dir string, certs *cluster.Certs) error {
	sys, err := cluster.Lookup("etcd")
	if err != nil {
		return err
	}
	if s.store, err = cluster.Start(ctx, sys, cluster.Options{Dir: dir, Args: storeFlags}); err != nil {
		return err
	}
	server, err := kube.StartAPIServer(ctx, kube.Options{Store: s.store, Certs: certs, Dir: filepath.Join(dir, "apiserver")})
	if err != nil {
		return err
	}
	s.target = server.Target
	s.processes = []*cluster.Process{&server.Process, &s.store.Members[0].Process}
	return nil
}

func (s *side) startLayer(ctx context.Context, dir string, certs *cluster.Certs) error {
	sys, err := cluster.UnderTest()
	if err != nil {
		return err
	}
	port, err := porttest.Claim()
	if err != nil {
		return err
	}
	tokens, err := kube.WriteTokens(dir)
	if err != nil {
		return err
	}
	s.target = kube.Target{URL: fmt.Sprintf("https://127.0.0.1:%d", port), CA: certs.CA, Token: kube.TokenOf("admin")}
	s.store, err = cluster.Start(ctx, sys, cluster.Options{Dir: dir, Certs: certs, Args: append([]string{
		"--listen-resource-urls", s.target.URL, "--resource-token-auth-file", tokens, "--resource-authorization-mode", "RBAC",
		// A token is enough: with an authority for clients, TLS asks for a certificate.
		"--client-cert-auth=false", "--trusted-ca-file=",
	}, storeFlags...)})
	if err != nil {
		return err
	}
	s.processes = []*cluster.Process{&s.store.Members[0].Process}
	return s.target.Ready(ctx, s.store.Members[0].Exited())
}

func (s *side) close() {
	for _, p := range s.processes {
		p.Kill()
	}
	if s.store != nil {
		s.store.Close()
	}
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
}

// restart stops all processes of the side in order and starts them again. It gives
// the time until the server is ready.
func (s *side) restart(ctx context.Context) (time.Duration, error) {
	s.client.CloseIdleConnections()
	for _, p := range s.processes {
		if err := p.Stop(time.Minute); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	for i := len(s.processes) - 1; i >= 0; i-- {
		if err := s.processes[i].Start(); err != nil {
			return 0, err
		}
	}
	err := s.target.Ready(ctx, s.processes[0].Exited())
	return time.Since(began), err
}

// newClient is a client with connections of its own.
func (s *side) newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: s.tls.Clone(), ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64, DisableCompression: true,
	}}
}

// cpu is the processor time of all processes so far.
func (s *side) cpu() (total time.Duration) {
	for _, p := range s.processes {
		if u, err := cluster.ProcessUsage(p.PID()); err == nil {
			total += u.CPU
		}
	}
	return total
}

// memory is what all processes hold now, in MiB: their own, and with it what they
// have mapped of files.
func (s *side) memory() (anon, resident float64, err error) {
	for _, p := range s.processes {
		u, err := cluster.ProcessUsage(p.PID())
		if err != nil {
			return 0, 0, err
		}
		anon += float64(u.Anon) / (1 << 20)
		resident += float64(u.RSS) / (1 << 20)
	}
	return anon, resident, nil
}

// profile takes a profile of the store's process into a file.
func (s *side) profile(ctx context.Context, what, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.store.Members[0].ClientURL()+"/debug/pprof/"+what, nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return errors.Join(err, os.WriteFile(file, b, 0o644))
}

// do sends a request and returns the answer, whose status is below 300.
func (s *side) do(ctx context.Context, client *http.Client, method, path, contentType string, body []byte, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.target.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.target.Token)
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return resp, nil
}

// call sends a request and reads the answer to its end. It gives its size.
func (s *side) call(ctx context.Context, method, path, contentType string, body []byte, header ...string) (int64, error) {
	resp, err := s.do(ctx, s.client, method, path, contentType, body, header...)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return io.Copy(io.Discard, resp.Body)
}

// fill creates pods first to first+n-1.
func (s *side) fill(ctx context.Context, first, n int) error {
	return bench.Each(ctx, n, 16, func(ctx context.Context, i int) error { return s.create(ctx, first+i) })
}

func (s *side) create(ctx context.Context, i int) error {
	_, err := s.call(ctx, http.MethodPost, "/api/v1/namespaces/"+namespaceOf(i)+"/pods", "application/json", pod(i, s.padding))
	return err
}
