package control

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/server/porttest"
)

// pollEvery is how often a condition is looked at again.
const pollEvery = 50 * time.Millisecond

// World is three members of kvd that serve Kubernetes' API, and the history of
// their store.
type World struct {
	Store *cluster.Cluster
	Truth *Truth
	Etcd  *clientv3.Client

	certs  *cluster.Certs
	plain  []string // host:port of each member's resource layer, in HTTP/1.1
	secure []string // and in TLS, where clients speak HTTP/2
}

// StartWorld starts it below dir. It ends with ctx and Close.
func StartWorld(ctx context.Context, dir string) (*World, error) {
	sys, err := cluster.UnderTest()
	if err != nil {
		return nil, err
	}
	w := &World{Truth: &Truth{}}
	if w.certs, err = cluster.NewCerts(filepath.Join(dir, "certs")); err != nil {
		return nil, err
	}
	const members = 3
	for range members {
		for _, to := range []*[]string{&w.plain, &w.secure} {
			port, err := porttest.Claim()
			if err != nil {
				return nil, err
			}
			*to = append(*to, fmt.Sprintf("127.0.0.1:%d", port))
		}
	}
	w.Store, err = cluster.Start(ctx, sys, cluster.Options{Members: members, Dir: dir, Certs: w.certs, ArgsOf: func(i int) []string {
		// A certificate of the client is asked for where etcd's clients come, too: go without.
		return []string{"--listen-resource-urls", "http://" + w.plain[i] + ",https://" + w.secure[i], "--client-cert-auth=false", "--trusted-ca-file="}
	}})
	if err != nil {
		return nil, err
	}
	_, _, tls, err := w.certs.Client("truth")
	if err == nil {
		w.Etcd, err = clientv3.New(clientv3.Config{Endpoints: w.Store.Endpoints(), TLS: tls, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	}
	if err == nil {
		go w.Truth.Follow(ctx, w.Etcd)
		err = w.define(ctx)
	}
	if err != nil {
		w.Close()
	}
	return w, err
}

// Close kills the members.
func (w *World) Close() {
	if w.Etcd != nil {
		w.Etcd.Close()
	}
	w.Store.Close()
}

// Config is for a client of member i.
func (w *World) Config(i int) *rest.Config { return w.ConfigOf("http://" + w.plain[i]) }

// ConfigOf is for a client of a URL: without a limit of its own on requests.
func (w *World) ConfigOf(url string) *rest.Config {
	cfg := &rest.Config{Host: url, QPS: -1, UserAgent: "control", WarningHandler: rest.NoWarnings{}}
	if strings.HasPrefix(url, "https:") {
		cfg.CAFile = w.certs.CA
	}
	return cfg
}

// Kubeconfig writes the file of a client of a URL.
func (w *World) Kubeconfig(path, url string) error {
	authority := ""
	if strings.HasPrefix(url, "https:") {
		authority = fmt.Sprintf(", certificate-authority: %q", w.certs.CA)
	}
	return os.WriteFile(path, []byte(fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: control
contexts: [{name: control, context: {cluster: control}}]
clusters: [{name: control, cluster: {server: %q%s}}]
`, url, authority)), 0o600)
}

// Front makes an address for the members; prefer is served first.
func (w *World) Front(prefer int, secure bool) (*Front, string, error) {
	backends, scheme := w.plain, "http"
	if secure {
		backends, scheme = w.secure, "https"
	}
	f, err := NewFront(backends, prefer)
	if err != nil {
		return nil, "", err
	}
	return f, (&url.URL{Scheme: scheme, Host: f.Addr()}).String(), nil
}

// define makes Widgets known, and waits until every member serves them.
func (w *World) define(ctx context.Context) error {
	if err := w.create(ctx, definitions, "", widgetDefinition()); err != nil {
		return err
	}
	for i := range w.plain {
		client, err := dynamic.NewForConfig(w.Config(i))
		if err != nil {
			return err
		}
		if err := Until(ctx, func() error {
			_, err := client.Resource(widgetResource).List(ctx, metav1.ListOptions{})
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// create makes an object through the first member, once that can.
func (w *World) create(ctx context.Context, gvr schema.GroupVersionResource, namespace string, o *unstructured.Unstructured) error {
	client, err := dynamic.NewForConfig(w.Config(0))
	if err != nil {
		return err
	}
	var to dynamic.ResourceInterface = client.Resource(gvr)
	if namespace != "" {
		to = client.Resource(gvr).Namespace(namespace)
	}
	return Until(ctx, func() error {
		_, err := to.Create(ctx, o, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// patience is how long anything may take that must happen, on a busy machine.
const patience = 2 * time.Minute

// Until repeats try until it succeeds, and gives its last error if it does not.
func Until(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pollEvery):
		}
	}
}

// Kill kills member i; Restart starts it again and waits until it serves.
func (w *World) Kill(i int) { w.Store.Members[i].Kill() }

// Restart starts member i again and waits until all serve.
func (w *World) Restart(ctx context.Context, i int) error {
	if err := w.Store.Members[i].Start(); err != nil {
		return err
	}
	return w.Store.Ready(ctx)
}

// Leader is the number of the member that leads.
func (w *World) Leader(ctx context.Context) (int, error) {
	m, err := w.Store.Leader(ctx)
	if err != nil {
		return 0, err
	}
	for i, o := range w.Store.Members {
		if o == m {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s leads and is no member", m.Name)
}
