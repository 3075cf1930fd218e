package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// Discovery by another cluster that serves etcd's v3 API. Somebody has written
// the size of the new cluster there; each member writes itself and waits until
// that many have. When more do, the first by their revisions count.
//
//	/_etcd/registry/<token>/_config/size          the number of members
//	/_etcd/registry/<token>/members/<member id>   name=url,name=url
const registryPrefix = "/_etcd/registry"

// Errors of a registry, with etcd's texts. No retry mends them.
var (
	errRegistrySize     = errors.New("discovery: size key is bad")
	errRegistryNoSize   = errors.New("discovery: size key not found")
	errRegistryFull     = errors.New("discovery: cluster is full")
	errRegistryBadEntry = errors.New("discovery: invalid peer URL")
)

// registry is a member's way into the discovery service.
type registry struct {
	cfg   *Config
	conns []*grpc.ClientConn // by endpoint
	next  int                // whom to ask next
	token string             // of a login; empty without
}

// registered is a member's entry.
type registered struct {
	key, cluster string
	create       int64
}

// register writes this member into the registry and returns the cluster when it
// is complete.
func register(ctx context.Context, c *Config, self api.MemberID) (string, error) {
	r, err := openRegistry(c)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrConfig, err)
	}
	defer r.close()
	own := path.Join(registryPrefix, c.Discovery.Token, "members", self.String())
	if _, _, err := r.lookAround(ctx, own); err != nil {
		return "", err
	}
	entry := formatInitialCluster([]Member{{Name: c.Name, PeerURLs: urlStrings(c.AdvertisePeerURLs)}})
	err = r.retry(ctx, func(ctx context.Context, kv pb.KVClient) error {
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(own), Value: []byte(entry)})
		return err
	})
	if err != nil {
		return "", err
	}
	c.Logger.Info("registered with the discovery service; waiting for the others", "key", own)
	for {
		found, size, err := r.lookAround(ctx, own)
		if err != nil {
			return "", err
		}
		if len(found) >= size {
			return joinEntries(found[:size], c.Discovery.Token)
		}
		if err := r.pause(ctx, registryPoll); err != nil {
			return "", err
		}
	}
}

// registryPoll lies between two looks at who has registered. A new cluster does
// not hurry, and a look costs less than a watch that must be renewed.
const registryPoll = 500 * time.Millisecond

func joinEntries(found []registered, token string) (string, error) {
	var all []string
	for _, f := range found {
		all = append(all, f.cluster)
	}
	cluster := strings.Join(all, ",")
	if _, err := parseInitialCluster(cluster, token); err != nil {
		return "", fmt.Errorf("%w (%s)", errRegistryBadEntry, cluster)
	}
	return cluster, nil
}

// lookAround returns who has registered, in the order of coming, and how many
// the cluster shall have. It is full when that many came and own is not among them.
func (r *registry) lookAround(ctx context.Context, own string) (found []registered, size int, err error) {
	base := path.Join(registryPrefix, r.cfg.Discovery.Token)
	var sizes, members *pb.RangeResponse
	err = r.retry(ctx, func(ctx context.Context, kv pb.KVClient) (err error) {
		if sizes, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte(path.Join(base, "_config/size"))}); err == nil {
			prefix := path.Join(base, "members")
			members, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(prefix[:len(prefix)-1] + "t")})
		}
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if len(sizes.Kvs) == 0 {
		return nil, 0, errRegistryNoSize
	}
	size, err = strconv.Atoi(string(sizes.Kvs[0].Value))
	if err != nil || size <= 0 {
		return nil, 0, errRegistrySize
	}
	for _, kv := range members.Kvs {
		entry := strings.TrimSpace(string(kv.Value))
		if !strings.Contains(entry, "=") {
			r.cfg.Logger.Warn("the registry holds an entry that names no member", "key", string(kv.Key), "value", entry)
			continue
		}
		found = append(found, registered{string(kv.Key), entry, kv.CreateRevision})
	}
	slices.SortFunc(found, func(a, b registered) int { return cmp.Compare(a.create, b.create) })
	at := slices.IndexFunc(found, func(f registered) bool { return f.key == own })
	if len(found) >= size && (at < 0 || at >= size) {
		return nil, 0, errRegistryFull
	}
	return found, size, nil
}

// Pauses between tries double up to registryPauseMax, as in etcd.
const (
	registryPauseMin = 2 * time.Second
	registryPauseMax = 256 * time.Second
)

// retry goes on until an endpoint answers.
func (r *registry) retry(ctx context.Context, do func(context.Context, pb.KVClient) error) error {
	for pause := registryPauseMin; ; pause = min(2*pause, registryPauseMax) {
		var last error
		for range r.conns {
			conn := r.conns[r.next]
			if last = r.try(ctx, conn, do); last == nil {
				return nil
			}
			r.next = (r.next + 1) % len(r.conns)
		}
		r.cfg.Logger.Warn("the discovery service does not answer", "error", last, "again_in", pause.String())
		if err := r.pause(ctx, pause); err != nil {
			return err
		}
	}
}

func (r *registry) try(ctx context.Context, conn *grpc.ClientConn, do func(context.Context, pb.KVClient) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := r.cfg.Clock.AfterFunc(r.cfg.Discovery.DialTimeout+r.cfg.Discovery.RequestTimeout, cancel)
	defer timer.Stop()
	if err := r.login(ctx, conn); err != nil {
		return err
	}
	if r.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", r.token)
	}
	err := do(ctx, pb.NewKVClient(conn))
	if err != nil {
		r.token = "" // it may have ended
	}
	return err
}

// login gets a token, if the registry wants a user.
func (r *registry) login(ctx context.Context, conn *grpc.ClientConn) error {
	d := &r.cfg.Discovery
	if d.User == "" || r.token != "" {
		return nil
	}
	name, password := d.User, d.Password
	if password == "" {
		name, password, _ = strings.Cut(d.User, ":")
	}
	resp, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password}, grpc.WaitForReady(true))
	r.token = resp.GetToken()
	return err
}

func (r *registry) pause(ctx context.Context, d time.Duration) error {
	timer := r.cfg.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func openRegistry(c *Config) (_ *registry, err error) {
	d := &c.Discovery
	r := &registry{cfg: c}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	secure, err := d.tls()
	if err != nil {
		return nil, err
	}
	for _, endpoint := range d.Endpoints {
		target, creds := endpoint, insecure.NewCredentials()
		scheme, rest, ok := strings.Cut(endpoint, "://")
		if ok {
			target = rest
		}
		if scheme == "https" || !ok && !d.Insecure {
			creds = credentials.NewTLS(secure)
		}
		conn, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(creds),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: d.KeepaliveTime, Timeout: d.KeepaliveTimeout}))
		if err != nil {
			return nil, err
		}
		r.conns = append(r.conns, conn)
	}
	return r, nil
}

func (d *Discovery) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: d.InsecureSkipVerify}
	if d.Cert != "" || d.Key != "" {
		pair, err := tls.LoadX509KeyPair(d.Cert, d.Key)
		if err != nil {
			return nil, fmt.Errorf("--discovery-cert: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	if d.CACert != "" {
		b, err := readBounded(d.CACert)
		if err != nil {
			return nil, fmt.Errorf("--discovery-cacert: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("--discovery-cacert: %s holds no certificate", d.CACert)
		}
	}
	return t, nil
}

func (r *registry) close() {
	for _, c := range r.conns {
		c.Close()
	}
}
