package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// remote is a connection with one endpoint, logged in if that was asked for.
type remote struct {
	endpoint string
	conn     *grpc.ClientConn
	pass     *pass
}

func (r *remote) kv() pb.KVClient             { return pb.NewKVClient(r.conn) }
func (r *remote) watch() pb.WatchClient       { return pb.NewWatchClient(r.conn) }
func (r *remote) lease() pb.LeaseClient       { return pb.NewLeaseClient(r.conn) }
func (r *remote) cluster() pb.ClusterClient   { return pb.NewClusterClient(r.conn) }
func (r *remote) admin() pb.MaintenanceClient { return pb.NewMaintenanceClient(r.conn) }
func (r *remote) auth() pb.AuthClient         { return pb.NewAuthClient(r.conn) }

// defaultSend is the largest request if the flags do not say, as in etcdctl.
const defaultSend = 2 << 20

// connect returns a connection that is ready for calls. One is made for each
// endpoint and kept until the command ends.
func (a *app) connect(ctx context.Context, endpoint string) (*remote, error) {
	for _, r := range a.remotes {
		if r.endpoint == endpoint {
			return r, nil
		}
	}
	r, err := a.dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	a.remotes = append(a.remotes, r)
	return r, nil
}

func (a *app) dial(ctx context.Context, endpoint string) (*remote, error) {
	target, secure, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, usage("endpoint %q: %v", endpoint, err)
	}
	creds, err := a.transport(secure)
	if err != nil {
		return nil, err
	}
	var refusal dialError
	send, recv := a.maxSend, a.maxRecv
	if send <= 0 {
		send = defaultSend
	}
	if recv <= 0 {
		recv = math.MaxInt32
	}
	p := &pass{token: a.token}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(&watched{creds, &refusal}),
		grpc.WithPerRPCCredentials(p),
		grpc.WithContextDialer(refusal.dial),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: a.keepaliveTime, Timeout: a.keepaliveTimeout, PermitWithoutStream: false}),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(send), grpc.MaxCallRecvMsgSize(recv)),
		grpc.WithUserAgent("kvctl"),
	)
	if err != nil {
		return nil, usage("endpoint %q: %v", endpoint, err)
	}
	r := &remote{endpoint: endpoint, conn: conn, pass: p}
	if err := a.ready(ctx, r, &refusal); err != nil {
		conn.Close()
		return nil, err
	}
	if err := a.login(ctx, r); err != nil {
		conn.Close()
		return nil, err
	}
	return r, nil
}

// ready waits until the connection stands or has failed once.
func (a *app) ready(ctx context.Context, r *remote, refusal *dialError) error {
	ctx, cancel := context.WithTimeout(ctx, a.dialTimeout)
	defer cancel()
	r.conn.Connect()
	for {
		state := r.conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		if state == connectivity.TransientFailure || !r.conn.WaitForStateChange(ctx, state) {
			err := refusal.last()
			if err == nil {
				err = fmt.Errorf("no connection within %v", a.dialTimeout)
			}
			return &failure{
				code: exitUnreachable, did: didConnect, endpoint: r.endpoint, err: err,
				next: "is the member running, and is this its client address? For TLS give https:// or --cacert",
			}
		}
	}
}

// login gets a token for the user that the flags name.
func (a *app) login(ctx context.Context, r *remote) error {
	if a.user == "" {
		return nil
	}
	name, password, given := strings.Cut(a.user, ":")
	switch {
	case a.password != "":
		name, password = a.user, a.password
	case !given:
		var err error
		if password, err = a.askSecret("Password: "); err != nil {
			return usage("no password for --user %s: %v", name, err)
		}
		a.password, a.user = password, name
	}
	resp, err := r.auth().Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password})
	if err != nil {
		if strings.Contains(text(err), "authentication is not enabled") {
			return nil // as etcdctl: who logs in where nobody has to, may
		}
		f := classify("log in as "+name, r.endpoint, err).(*failure)
		if !unavailable(err) && f.code == exitRefused {
			f.code = exitDenied
		}
		return f
	}
	r.pass.token = resp.Token
	return nil
}

// unavailable reports that a request surely, or probably, did not reach a
// member that could work on it.
func unavailable(err error) bool {
	var f *failure
	if errors.As(err, &f) {
		return f.code == exitUnreachable
	}
	return status.Code(err) == codes.Unavailable
}

// parseEndpoint turns what the flags say into grpc's target.
func parseEndpoint(s string) (target string, secure bool, err error) {
	scheme, rest, ok := strings.Cut(strings.TrimSpace(s), "://")
	if !ok {
		scheme, rest = "", scheme
	}
	switch scheme {
	case "unix", "unixs":
		return "unix:" + rest, scheme == "unixs", nil
	case "", "http", "https":
		rest = strings.TrimSuffix(rest, "/")
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return "", false, err
		}
		return "passthrough:///" + rest, scheme == "https", nil
	}
	return "", false, fmt.Errorf("unknown scheme %q", scheme)
}

// transport says how to speak with an endpoint.
func (a *app) transport(secure bool) (credentials.TransportCredentials, error) {
	cfg, err := a.tlsConfig(secure)
	if cfg == nil || err != nil {
		return insecure.NewCredentials(), err
	}
	return credentials.NewTLS(cfg), nil
}

// tlsConfig is nil for an endpoint that is spoken with plainly.
func (a *app) tlsConfig(secure bool) (*tls.Config, error) {
	if !secure && a.insecureTransport && a.cacert == "" && a.cert == "" && !a.insecureSkipVerify {
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

// pass adds the token to each call, as etcd wants it.
type pass struct{ token string }

func (p *pass) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if p.token == "" {
		return nil, nil
	}
	return map[string]string{"token": p.token}, nil
}

// RequireTransportSecurity: etcd's tokens also work without TLS.
func (p *pass) RequireTransportSecurity() bool { return false }
