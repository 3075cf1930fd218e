// Command try starts three members of kvd and a kube-apiserver over them, puts a
// small web shop into it and prints what to look at with kubectl and kvctl.
// Ctrl-C ends it all and removes its data.
package main

import (
	"context"
	_ "embed" // for the shop
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/kube"
)

//go:embed shop.yaml
var shop string

// startLimit is for a busy machine.
const startLimit = 3 * time.Minute

func main() {
	runtime.LockOSThread() // the processes die with the thread that started them
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "try:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kvd-try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	certs, err := cluster.NewCerts(filepath.Join(dir, "certs"))
	if err != nil {
		return err
	}
	sys, err := cluster.UnderTest()
	if err != nil {
		return err
	}
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	store, err := cluster.Start(starting, sys, cluster.Options{Members: 3, Dir: dir})
	if err != nil {
		return err
	}
	defer store.Close()
	server, err := kube.StartAPIServer(starting, kube.Options{Store: store, Certs: certs, Dir: filepath.Join(dir, "kube-apiserver")})
	if err != nil {
		return err
	}
	defer server.Kill()
	if err := fill(starting, server, dir); err != nil {
		return err
	}
	if err := announce(store, dir); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-server.Exited():
		return fmt.Errorf("kube-apiserver ended, see %s", server.LogPath())
	}
}

// fill applies the shop, and says of its pods what a kubelet would say.
func fill(ctx context.Context, server *kube.APIServer, dir string) error {
	kubectl, err := kube.NewKubectl(server.Target, dir)
	if err != nil {
		return err
	}
	steps := [][]string{{"apply", "-f", "-"}, {"apply", "--server-side", "--subresource", "status", "--field-manager", "kubelet", "-f", "-"}}
	for i, docs := range strings.SplitN(shop, "\n# What a kubelet reports.\n", 2) {
		p, err := kubectl.Run(ctx, docs, steps[i]...)
		if err != nil {
			return err
		}
		if p.Code != 0 {
			return fmt.Errorf("kubectl %s: %s", strings.Join(steps[i], " "), p.Stderr)
		}
	}
	return nil
}

func announce(store *cluster.Cluster, dir string) error {
	kubectl, err := cluster.BinaryPath("kubectl")
	if err != nil {
		return err
	}
	leader, err := store.Leader(context.Background())
	if err != nil {
		return err
	}
	fmt.Printf(`A kube-apiserver runs over three members of kvd. In another terminal:

    export PATH=%s:$PATH KUBECONFIG=%s KVCTL_ENDPOINTS=%s
    kubectl get pods -n shop -o wide
    kvctl get /registry/pods                       # the same, read from the store
    kvctl get /registry/deployments/shop/web -o yaml
    kvctl get --tree --prefix /registry
    kubectl get pods -n shop -w                    # and then kill the store's leader:
    kill -9 %d

Ctrl-C ends it all.
`, filepath.Dir(kubectl), filepath.Join(dir, "kubeconfig"), strings.Join(store.Endpoints(), ","), leader.PID())
	return nil
}
