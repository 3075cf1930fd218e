package kube

import (
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

	"k8s.io/client-go/rest"
)

// Target is a server that speaks Kubernetes' API, and who asks it.
type Target struct {
	URL   string
	CA    string // file; empty: no TLS
	Token string // empty: nobody
}

// Config is for client-go: without a limit of its own on requests, because the
// server is what is tried.
func (t Target) Config() *rest.Config {
	return &rest.Config{
		Host: t.URL, BearerToken: t.Token, TLSClientConfig: rest.TLSClientConfig{CAFile: t.CA},
		QPS: -1, UserAgent: "compat",
		WarningHandler: rest.NoWarnings{}, // old versions are served on purpose
	}
}

// Kubeconfig writes the file that kubectl reads.
func (t Target) Kubeconfig(dir string) (string, error) {
	authority := ""
	if t.CA != "" {
		authority = fmt.Sprintf(", certificate-authority: %q", t.CA)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: compat
contexts: [{name: compat, context: {cluster: compat, user: compat}}]
clusters: [{name: compat, cluster: {server: %q%s}}]
users: [{name: compat, user: {token: %q}}]
`, t.URL, authority, t.Token)
	path := filepath.Join(dir, "kubeconfig")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// pollEvery is how often a condition is looked at again.
const pollEvery = 100 * time.Millisecond

// Ready waits until the server says so of itself. died is closed when it ends.
func (t Target) Ready(ctx context.Context, died <-chan struct{}) error {
	pool := x509.NewCertPool()
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return err
		}
		pool.AppendCertsFromPEM(pem)
	}
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
	}
	defer client.CloseIdleConnections()
	for {
		err := t.readyz(ctx, client)
		if err == nil {
			return nil
		}
		select {
		case <-died:
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(pollEvery):
		}
	}
}

func (t Target) readyz(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL+"/readyz", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+t.Token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}
