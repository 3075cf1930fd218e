package kube

import (
	"strings"

	"github.com/keelson-io/keelson/compat/cluster"
)

// Workloads are the controllers of Kubernetes that a resource layer leaves to
// others; Housekeeping are those that it has itself.
var (
	Workloads    = []string{"deployment-controller", "replicaset-controller", "job-controller"}
	Housekeeping = []string{"garbage-collector-controller", "namespace-controller", "resourcequota-controller", "clusterrole-aggregation-controller"}
)

// StartControllers runs Kubernetes' own controllers against a target.
func StartControllers(t Target, dir string, names ...string) (*cluster.Process, error) {
	binary, config, err := aimed("kube-controller-manager", t, dir)
	if err != nil {
		return nil, err
	}
	p := &cluster.Process{Name: "kube-controller-manager", Binary: binary, Dir: dir, Args: []string{
		"--kubeconfig", config, "--leader-elect=false", "--bind-address", "127.0.0.1", "--secure-port", "0",
		"--controllers", strings.Join(names, ","),
		// A namespace that was emptied is looked at again after a part of this.
		"--namespace-sync-period", "10s", "--kube-api-qps", "200", "--kube-api-burst", "400",
	}}
	return p, p.Start()
}
