package kube

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/server/porttest"
)

// APIServer is a kube-apiserver process.
type APIServer struct {
	cluster.Process
	Target
}

// Options of a kube-apiserver.
type Options struct {
	Store *cluster.Cluster
	Certs *cluster.Certs // to serve with, and towards a store that has TLS
	Dir   string
	Args  []string // further flags
}

// StartAPIServer starts a kube-apiserver over a store and waits until it is
// ready. It is close to what kubeadm runs: TLS on both sides, RBAC, the usual
// admission but for service accounts, whose controller does not run here.
func StartAPIServer(ctx context.Context, opt Options) (*APIServer, error) {
	binary, err := program("kube-apiserver")
	if err != nil {
		return nil, err
	}
	port, err := porttest.Claim()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opt.Dir, 0o755); err != nil {
		return nil, err
	}
	s := &APIServer{
		Process: cluster.Process{Name: "kube-apiserver", Binary: binary, Dir: opt.Dir},
		Target:  Target{URL: fmt.Sprintf("https://127.0.0.1:%d", port), CA: opt.Certs.CA, Token: TokenOf("admin")},
	}
	tokens, err := WriteTokens(opt.Dir)
	if err != nil {
		return nil, err
	}
	if s.Args, err = arguments(opt, port, tokens); err != nil {
		return nil, err
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	if err := s.Ready(ctx, s.Exited()); err != nil {
		s.Kill()
		return nil, fmt.Errorf("kube-apiserver: %w, see %s", err, s.LogPath())
	}
	return s, nil
}

func arguments(opt Options, port int, tokens string) ([]string, error) {
	cert, key, _, err := opt.Certs.Client("kube-apiserver")
	if err != nil {
		return nil, err
	}
	serving, servingKey := opt.Certs.Server()
	var urls []string
	for _, m := range opt.Store.Members {
		urls = append(urls, m.ClientURL())
	}
	args := []string{
		"--etcd-servers", strings.Join(urls, ","),
		"--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(port),
		// What it announces may not be loopback; nobody connects to it.
		"--advertise-address", "192.0.2.1",
		"--tls-cert-file", serving, "--tls-private-key-file", servingKey, "--cert-dir", opt.Dir,
		"--token-auth-file", tokens, "--authorization-mode", "RBAC",
		"--service-cluster-ip-range", "10.0.0.0/16",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--disable-admission-plugins", "ServiceAccount",
	}
	if opt.Store.Members[0].TLS != nil {
		args = append(args, "--etcd-cafile", opt.Certs.CA, "--etcd-certfile", cert, "--etcd-keyfile", key)
	}
	return append(args, opt.Args...), nil
}

// program finds what `make kube-bin` built.
func program(name string) (string, error) {
	path, err := cluster.BinaryPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not there; `make -C compat kube-bin` builds it, in some minutes", name)
	}
	return path, nil
}
