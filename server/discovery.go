package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Discovery is how the members of a new cluster find each other when nobody
// lists them: by DNS, or by registering with another cluster. It counts only for
// an empty data directory.
type Discovery struct {
	// SRV is the domain whose SRV records name the members; SRVName an addition
	// to the name of the service.
	SRV, SRVName string

	// Endpoints are client endpoints of the discovery service, and Token names
	// the new cluster there. It also takes the place of ClusterToken.
	Endpoints []string
	Token     string

	DialTimeout, RequestTimeout     time.Duration
	KeepaliveTime, KeepaliveTimeout time.Duration

	Insecure           bool   // no TLS to endpoints without a scheme
	InsecureSkipVerify bool   // trust any certificate
	Cert, Key, CACert  string // files
	User, Password     string // User may be name:password

	resolver resolver // nil: the system's
}

// errBootstrapFlags has etcd's text.
var errBootstrapFlags = errors.New(`multiple discovery or bootstrap flags are set. ` +
	`Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`)

func (d *Discovery) wanted() bool { return d.SRV != "" || len(d.Endpoints) > 0 }

// checkDiscovery has etcd's checks.
func (c *Config) checkDiscovery() error {
	d := &c.Discovery
	given := 0
	for _, set := range []bool{c.InitialCluster != "", d.SRV != "", len(d.Endpoints) > 0} {
		if set {
			given++
		}
	}
	switch {
	case given > 1:
		return errBootstrapFlags
	case (d.Token != "") != (len(d.Endpoints) > 0):
		return errors.New("both --discovery-token and --discovery-endpoints must be set")
	case slices.ContainsFunc(d.Endpoints, func(e string) bool { return strings.TrimSpace(e) == "" }):
		return errors.New("--discovery-endpoints must not contain empty endpoints")
	case !c.NewCluster && len(d.Endpoints) > 0:
		return errors.New("discovery URL should not be set when joining existing initial cluster")
	}
	return nil
}

// findCluster says which members a new cluster has, as --initial-cluster writes
// them, and its token. It may wait for other members to register, until the
// start is interrupted.
func (c *Config) findCluster() (initial, token string, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.Interrupt != nil {
		defer context.AfterFunc(c.Interrupt, cancel)()
	}
	switch d := &c.Discovery; {
	case len(d.Endpoints) > 0:
		self := memberID(urlStrings(c.AdvertisePeerURLs), d.Token)
		initial, err = register(ctx, c, self)
		return initial, d.Token, err
	case d.SRV != "":
		r := d.resolver
		if r == nil {
			r = systemResolver{}
		}
		initial, err = c.lookUpCluster(ctx, r)
		return initial, c.ClusterToken, err
	}
	return c.InitialCluster, c.ClusterToken, nil
}

// lookUpCluster reads the members from SRV records: of the service
// etcd-server-ssl those that speak TLS, of etcd-server the others.
func (c *Config) lookUpCluster(ctx context.Context, r resolver) (string, error) {
	suffix := ""
	if c.Discovery.SRVName != "" {
		suffix = "-" + c.Discovery.SRVName
	}
	secure, err1 := c.lookUpService(ctx, r, "https", "etcd-server-ssl"+suffix)
	plain, err2 := c.lookUpService(ctx, r, "http", "etcd-server"+suffix)
	found := slices.Concat(secure, plain)
	if len(found) == 0 {
		return "", fmt.Errorf("no members in the SRV records of %s: %w; %w", c.Discovery.SRV, err1, err2)
	}
	c.Logger.Info("found members in DNS", "domain", c.Discovery.SRV, "members", found)
	if !slices.ContainsFunc(found, func(m string) bool { return strings.HasPrefix(m, c.Name+"=") }) {
		return "", fmt.Errorf("cannot find local etcd member %q in SRV records", c.Name)
	}
	return strings.Join(found, ","), nil
}

// lookUpService lists name=url of one service. The record whose address is that
// of one of our own peer URLs is ours; the others have no names, so they get
// numbers. A record of ours with the other scheme is a mistake in DNS.
func (c *Config) lookUpService(ctx context.Context, r resolver, scheme, service string) ([]string, error) {
	own := map[string]string{} // scheme by resolved address
	for _, u := range c.AdvertisePeerURLs {
		address, err := r.address(ctx, u.Host)
		if err != nil {
			return nil, err
		}
		own[address] = u.Scheme
	}
	targets, failed := r.srv(ctx, service, c.Discovery.SRV)
	var found []string
	unnamed := 0
	for _, t := range targets {
		address, err := r.address(ctx, t)
		if err != nil {
			failed = err
			continue
		}
		ownScheme, isOwn := own[address]
		name := c.Name
		if !isOwn {
			name = fmt.Sprint(unnamed)
			unnamed++
		}
		if isOwn && ownScheme != scheme {
			failed = fmt.Errorf("bootstrap at %s://%s from DNS for %s has scheme mismatch with expected peer", scheme, t, service)
			continue
		}
		found = append(found, name+"="+scheme+"://"+t)
	}
	if len(found) == 0 {
		if failed == nil {
			failed = errors.New("there are none")
		}
		return nil, fmt.Errorf("error querying DNS SRV records for _%s: %w", service, failed)
	}
	return found, nil
}

// resolver is DNS.
type resolver interface {
	// srv lists the targets of a service over TCP, as host:port without the dot
	// at the end.
	srv(ctx context.Context, service, domain string) ([]string, error)
	// address resolves host:port.
	address(ctx context.Context, hostport string) (string, error)
}
