// Command k8s runs Kubernetes' storage tests against a store; package k8s says
// how. It exits with 1 when a case fails.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/keelson-io/keelson/compat/cluster"
	"github.com/keelson-io/keelson/compat/k8s"
)

func main() {
	store := flag.String("store", "kvd", "etcd, kvd, or a binary")
	work := flag.String("work", "bin/k8s", "where the copy of the module is kept between runs")
	packages := flag.String("packages", strings.Join(k8s.DefaultPackages, " "), "packages of the module, separated by spaces")
	run := flag.String("run", "", "only tests that match, as in go test")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	sys, err := cluster.Lookup(*store)
	if err != nil {
		fmt.Fprintln(os.Stderr, "k8s:", err)
		os.Exit(2)
	}
	opt := k8s.Options{Store: sys.Binary, Work: *work, Packages: strings.Fields(*packages), Output: os.Stderr}
	if *run != "" {
		opt.Args = []string{"-run", *run}
	}
	began := time.Now()
	res, err := k8s.Run(ctx, opt)
	for _, f := range res.Failures {
		fmt.Printf("--- FAILED %s\n%s\n", f.Test, f.Output)
	}
	fmt.Printf("%s against %s: %d top-level tests; of %d cases %d passed, %d failed, %d skipped; %v\n",
		k8s.Module, sys.Name, res.Top, res.Passed+res.Failed+res.Skipped, res.Passed, res.Failed, res.Skipped, time.Since(began).Round(time.Second))
	if err != nil {
		fmt.Fprintln(os.Stderr, "k8s:", err)
		os.Exit(2)
	}
	if res.Failed > 0 || res.Passed == 0 {
		os.Exit(1)
	}
}
