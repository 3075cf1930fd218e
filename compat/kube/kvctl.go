package kube

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/keelson-io/keelson/compat/cluster"
)

// Kvctl runs kvctl against the store below a kube-apiserver.
type Kvctl struct {
	binary string
	env    []string
	dir    string
}

// NewKvctl makes one, with a client certificate of the store if that has TLS.
func NewKvctl(store *cluster.Cluster, certs *cluster.Certs, dir string) (*Kvctl, error) {
	binary, err := cluster.BinaryPath("kvctl")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var urls []string
	for _, m := range store.Members {
		urls = append(urls, m.ClientURL())
	}
	env := append(os.Environ(), "HOME="+dir, "KVCTL_CONFIG="+filepath.Join(dir, "none.yaml"), "KVCTL_ENDPOINTS="+strings.Join(urls, ","))
	if certs != nil {
		cert, key, _, err := certs.Client("kvctl")
		if err != nil {
			return nil, err
		}
		env = append(env, "KVCTL_CACERT="+certs.CA, "KVCTL_CERT="+cert, "KVCTL_KEY="+key)
	}
	return &Kvctl{binary: binary, env: env, dir: dir}, nil
}

// Run runs one command, as Kubectl's does.
func (k *Kvctl) Run(ctx context.Context, stdin string, args ...string) (Printed, error) {
	return run(ctx, k.env, k.dir, stdin, k.binary, args...)
}
