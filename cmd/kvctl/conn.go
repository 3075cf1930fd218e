package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/client"
)

// remote is a client of one endpoint, or of all. What kvctl prints as the
// cluster sent it goes through etcd's generated clients, over its connections.
type remote struct {
	endpoint string // of several: as the flag has them
	*client.Client
}

func (r *remote) kv() pb.KVClient             { return pb.NewKVClient(r.Conn()) }
func (r *remote) lease() pb.LeaseClient       { return pb.NewLeaseClient(r.Conn()) }
func (r *remote) cluster() pb.ClusterClient   { return pb.NewClusterClient(r.Conn()) }
func (r *remote) admin() pb.MaintenanceClient { return pb.NewMaintenanceClient(r.Conn()) }
func (r *remote) auth() pb.AuthClient         { return pb.NewAuthClient(r.Conn()) }

const (
	// defaultSend is the largest request if the flags do not say, as in etcdctl.
	defaultSend = 2 << 20
	// rounds is how often all endpoints are asked before a command says that none
	// answers: a person waits, so it is not until the deadline.
	rounds = 3
)

// at is a client of some endpoints, for what a person waits for.
func (a *app) at(endpoints ...string) (*remote, error) { return a.client(rounds, endpoints) }

// patient is a client of all endpoints that goes on trying while none answers,
// for what is to last: locks, mirrors. What begins with it asks once in haste,
// so that a wrong endpoint shows.
func (a *app) patient() (*remote, error) { return a.client(0, a.endpoints) }

// client makes a client, once for each choice; it is closed with the command.
func (a *app) client(rounds int, endpoints []string) (*remote, error) {
	name := fmt.Sprintln(rounds, endpoints)
	if r := a.remotes[name]; r != nil {
		return r, nil
	}
	cfg, err := a.clientConfig(endpoints)
	if err != nil {
		return nil, err
	}
	cfg.Rounds = rounds
	c, err := client.New(cfg)
	if err != nil {
		return nil, usage("%s", strings.TrimPrefix(err.Error(), "client: "))
	}
	r := &remote{strings.Join(endpoints, ","), c}
	if a.remotes == nil {
		a.remotes = map[string]*remote{}
	}
	a.remotes[name] = r
	return r, nil
}

func (a *app) clientConfig(endpoints []string) (cfg client.Config, err error) {
	if err := a.askPassword(); err != nil {
		return cfg, err
	}
	secure, err := a.tlsConfig()
	if err != nil {
		return cfg, err
	}
	send, recv := a.maxSend, a.maxRecv
	if send <= 0 {
		send = defaultSend
	}
	if recv <= 0 {
		recv = math.MaxInt32
	}
	cfg = client.Config{
		Endpoints: endpoints, TLS: secure, Username: a.user, Password: a.password, Observer: &telling{a: a},
		Timeout:     -1, // what is short has a deadline from app.brief
		DialTimeout: a.dialTimeout, KeepAlive: a.keepaliveTime, KeepAliveTimeout: a.keepaliveTimeout,
		DialOptions: []grpc.DialOption{
			grpc.WithUserAgent("kvctl"), grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(send), grpc.MaxCallRecvMsgSize(recv)),
		},
	}
	if a.token != "" {
		cfg.Token = func(context.Context) (string, error) { return a.token, nil }
	}
	return cfg, nil
}

// askPassword completes --user.
func (a *app) askPassword() (err error) {
	if a.user == "" || a.password != "" {
		return nil
	}
	name, password, given := strings.Cut(a.user, ":")
	if !given {
		if password, err = a.askSecret("Password: "); err != nil {
			return usage("no password for --user %s: %v", name, err)
		}
	}
	a.user, a.password = name, password
	return nil
}

// tlsConfig is nil when only endpoints that ask for it (https://) get TLS.
func (a *app) tlsConfig() (*tls.Config, error) {
	if a.insecureTransport && a.cacert == "" && a.cert == "" && a.serverName == "" && !a.insecureSkipVerify {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: a.insecureSkipVerify, ServerName: a.serverName}
	if a.cacert != "" {
		text, err := os.ReadFile(a.cacert)
		if err != nil {
			return nil, fileFailed("read --cacert", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, usage("--cacert %s holds no certificate in PEM form", a.cacert)
		}
	}
	if a.cert != "" {
		pair, err := tls.LoadX509KeyPair(a.cert, a.key)
		if err != nil {
			return nil, usage("--cert %s and --key %s: %v", a.cert, a.key, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// telling tells the operator about a watch that has lost its connection and
// goes on trying; nobody would see it otherwise.
type telling struct {
	a  *app
	mu struct {
		sync.Mutex
		last time.Time
	}
}

// tellPeriod is how often it does.
const tellPeriod = 10 * time.Second

func (o *telling) Call(ctx context.Context, _ string) (context.Context, func(client.Outcome)) {
	return ctx, func(client.Outcome) {}
}

func (o *telling) Notice(n client.Notice) {
	if n.Kind != client.NoticeWatchBroken {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.mu.last) > tellPeriod {
		o.mu.last = time.Now()
		fmt.Fprintf(o.a.errs, "kvctl: watch: %s: %s; trying again\n", n.Endpoint, text(n.Err))
	}
}
