// Command manager is a controller-runtime manager with Lease election: its
// controller makes a Deployment of each Widget. It prints what it does as JSON
// lines, so that a test can judge it after it was killed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/keelson-io/keelson/compat/control"
)

func main() {
	flags := flag.NewFlagSet("manager", flag.ExitOnError) // controller-runtime has flags in the usual set
	kubeconfig := flags.String("kubeconfig", "", "file")
	identity := flags.String("identity", "", "name of this process in the lease and in what it writes")
	lease := flags.Duration("lease", 15*time.Second, "how long the lease lasts")
	renew := flags.Duration("renew", 10*time.Second, "how long its holder tries to renew it")
	retry := flags.Duration("retry", 2*time.Second, "pause between attempts")
	_ = flags.Parse(os.Args[1:]) // it exits
	log.SetLogger(zap.New(zap.UseDevMode(false)))
	if err := run(ctrl.SetupSignalHandler(), *kubeconfig, *identity, *lease, *renew, *retry); err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, identity string, lease, renew, retry time.Duration) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	lock, err := lockOf(cfg, identity, renew)
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Metrics:        metricsserver.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionResourceLockInterface: lock,
		LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
	})
	if err != nil {
		return err
	}
	out := &journal{}
	r := &reconciler{client: mgr.GetClient(), identity: identity, out: out}
	err = ctrl.NewControllerManagedBy(mgr).Named("widgets").For(control.NewWidget("", "", 0)).Owns(&appsv1.Deployment{}).Complete(r)
	if err != nil {
		return err
	}
	// Runs of this kind need the lease: this one begins when the manager leads.
	if err := mgr.Add(leading{out}); err != nil {
		return err
	}
	out.say(control.Said{What: control.SaidReady, Object: identity})
	err = mgr.Start(ctx)
	out.say(control.Said{What: control.SaidStopped})
	return err
}

// lockOf is the lock that a manager makes by itself, but for the name that it is held
// under.
func lockOf(cfg *rest.Config, identity string, renew time.Duration) (resourcelock.Interface, error) {
	cfg = rest.AddUserAgent(cfg, "leader-election")
	cfg.Timeout = max(renew/2, time.Second) // as a manager has it: no single request may cost the lease
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	return resourcelock.New(resourcelock.LeasesResourceLock, control.Namespace, control.ElectionName, client.CoreV1(), client.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: identity})
}

// leading says when the manager leads, and when it no longer does.
type leading struct{ out *journal }

func (l leading) Start(ctx context.Context) error {
	l.out.say(control.Said{What: control.SaidLeads})
	<-ctx.Done()
	l.out.say(control.Said{What: control.SaidYields})
	return nil
}

// journal prints what the process says.
type journal struct{ mu sync.Mutex }

func (j *journal) say(s control.Said) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.At = time.Now()
	_ = json.NewEncoder(os.Stdout).Encode(s) // who reads is gone, and so is the test
}

// reconciler makes a Deployment of a Widget, says so in its status, and leaves
// a ConfigMap behind for each Widget that went, as what a finalizer is for.
type reconciler struct {
	client   client.Client
	identity string
	out      *journal
}

func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	w := control.NewWidget("", "", 0)
	if err := r.client.Get(ctx, req.NamespacedName, w); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	var err error
	if w.GetDeletionTimestamp() != nil {
		err = r.finalize(ctx, w)
	} else {
		err = r.converge(ctx, w)
	}
	if apierrors.IsConflict(err) { // the cache is behind; its next event brings us back
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	r.out.say(control.Said{What: control.SaidReconciled, Object: req.Name, Error: text(err)})
	return ctrl.Result{}, err
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (r *reconciler) converge(ctx context.Context, w *unstructured.Unstructured) error {
	if controllerutil.AddFinalizer(w, control.Finalizer) {
		if err := r.client.Update(ctx, w); err != nil {
			return err
		}
	}
	replicas, _, _ := unstructured.NestedInt64(w.Object, "spec", "replicas")
	d := control.DeploymentOf(w, replicas)
	d.SetAnnotations(map[string]string{control.WriterAnnotation: r.identity})
	err := r.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(d), client.FieldOwner("widgets"), client.ForceOwnership)
	if err != nil {
		return err
	}
	status := map[string]any{"observedGeneration": w.GetGeneration(), "replicas": replicas, "writer": r.identity}
	if old, _, _ := unstructured.NestedMap(w.Object, "status"); old["observedGeneration"] == w.GetGeneration() && old["replicas"] == replicas {
		return nil // said already, by us or by who led before
	}
	w.Object["status"] = status
	return r.client.Status().Update(ctx, w)
}

func (r *reconciler) finalize(ctx context.Context, w *unstructured.Unstructured) error {
	if !controllerutil.ContainsFinalizer(w, control.Finalizer) {
		return nil
	}
	left := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name: control.LeftBehind(w.GetName()), Namespace: w.GetNamespace(), Annotations: map[string]string{control.WriterAnnotation: r.identity},
	}}
	if err := r.client.Create(ctx, left); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	controllerutil.RemoveFinalizer(w, control.Finalizer)
	return client.IgnoreNotFound(r.client.Update(ctx, w))
}
