package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/auth"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// authority knows who asks and what he may do. The state is replaced by the
// apply goroutine, at the command that changes it and before the store's new
// state is published: nobody reads new keys by old rights. It is read by any.
type authority struct {
	now       atomic.Pointer[auth.State]
	tokens    auth.Tokens
	passwords *auth.Passwords
	throttle  *auth.Throttle
	certs     bool // a client certificate's common name names a user
	invalid   error
	known     func(ctx context.Context, user string) // told of every caller who is a user
	log       *slog.Logger
}

// newAuthority makes the authority of an empty store. What is wrong with the
// settings is found in invalid; New refuses them.
func newAuthority(s *Server) *authority {
	cfg := &s.cfg
	a := &authority{
		passwords: auth.NewPasswords(int(cfg.BcryptCost), randomBytes()),
		throttle:  auth.NewThrottle(cfg.Clock, int(cfg.AuthFreeFailures)),
		certs:     cfg.ClientTLS.ClientCertAuth,
		log:       cfg.Logger,
		known:     s.load.known,
	}
	if cost := int(cfg.BcryptCost); !auth.ValidCost(cost) {
		a.log.Warn("bcrypt knows no such cost, taking the default", "cost", cost, "default", auth.DefaultCost)
	}
	a.now.Store(auth.Empty())
	a.tokens, a.invalid = auth.NewTokens(auth.TokenConfig{
		Spec: cfg.AuthToken, TTL: time.Duration(cfg.AuthTokenTTL) * time.Second,
		Cluster: s.cluster, Clock: cfg.Clock, Nonce: s.ids.next, Read: readBounded, Warn: a.log.Warn,
	})
	if a.invalid != nil {
		a.invalid = fmt.Errorf("%w: --auth-token: %w", ErrConfig, a.invalid)
	}
	return a
}

// load takes the state from a store's rows. The apply goroutine, or nobody yet.
func (a *authority) load(store rawReader) error {
	state, err := auth.Load(store.Raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirDamaged, err)
	}
	a.now.Store(state)
	return nil
}

// adopt makes what a command decided the state, and its rows part of the store's
// transaction.
func (a *authority) adopt(tx rawWriter, next *auth.State, rows []engine.Op) {
	for _, r := range rows {
		if r.Value == nil {
			tx.DeleteRaw(r.Bucket, r.Key)
			continue
		}
		tx.SetRaw(r.Bucket, r.Key, r.Value)
	}
	a.now.Store(next)
}

// caller tells who sent the RPC, by token or certificate, in the state given.
// Without either it is nobody, which is no error here.
func (a *authority) caller(ctx context.Context, state *auth.State) (auth.Principal, error) {
	if !state.Enabled {
		return auth.Principal{}, nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(rpctypes.TokenFieldNameGRPC)
	if len(values) == 0 {
		values = md.Get(rpctypes.TokenFieldNameSwagger)
	}
	if len(values) > 0 {
		token := strings.TrimPrefix(values[0], "Bearer ")
		who, ok := a.tokens.Resolve(state, token)
		if !ok {
			a.log.Debug("invalid token", "fingerprint", auth.Fingerprint(token))
			return auth.Principal{}, api.ErrInvalidAuthToken
		}
		a.known(ctx, who.Name)
		return who, nil
	}
	if name, ok := a.certificate(ctx, md); ok {
		a.known(ctx, name)
		return auth.Principal{Name: name, Revision: state.Revision}, nil
	}
	return auth.Principal{}, nil
}

// gatewayMark begins the metadata that the JSON gateway adds to what it passes on.
const gatewayMark = "grpcgateway-"

// certificate is the common name of the certificate that the client itself
// showed. What comes through the gateway was not sent by the holder of the
// connection's certificate: it names nobody.
func (a *authority) certificate(ctx context.Context, md metadata.MD) (name string, ok bool) {
	if !a.certs {
		return "", false
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", false
	}
	for key := range md {
		if strings.HasPrefix(key, gatewayMark) {
			a.log.Warn("a certificate's name is ignored, because the request came through the gateway")
			return "", false
		}
	}
	for _, chain := range info.State.VerifiedChains {
		if len(chain) > 0 {
			name = chain[0].Subject.CommonName
			a.log.Debug("client is known by its certificate", "user", name)
			return name, true
		}
	}
	return "", false
}

// refuseNames stands before the gateway. As in etcd, a client that shows a
// certificate with a name is told that the name will not make it a user there,
// instead of being refused as nobody later.
func (a *authority) refuseNames(gateway http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.certs && a.now.Load().Enabled && r.TLS != nil {
			for _, chain := range r.TLS.VerifiedChains {
				if len(chain) > 0 && chain[0].Subject.CommonName != "" {
					http.Error(w, "CommonName of client sending a request against gateway will be ignored and not used as expected", http.StatusBadRequest)
					return
				}
			}
		}
		gateway.ServeHTTP(w, r)
	})
}

// clientAddress is the host that the RPC came from.
func clientAddress(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	if known, ok := p.Addr.(*clientAddr); ok {
		return known.host
	}
	return hostOf(p.Addr)
}

// caller tells who sent the RPC. A token that is unknown here may have been given
// out elsewhere a moment ago: this member then catches up before it says so.
func (s *Server) caller(ctx context.Context) (auth.Principal, error) {
	who, err := s.auth.caller(ctx, s.auth.now.Load())
	if err == nil {
		return who, nil
	}
	if s.node.ReadBarrier(ctx) != nil {
		return auth.Principal{}, err
	}
	return s.auth.caller(ctx, s.auth.now.Load())
}

// permit asks check about the caller. A refusal may be one of yesterday's state:
// it counts once this member has caught up with the cluster.
func (s *Server) permit(ctx context.Context, check func(state *auth.State, who auth.Principal) error) (auth.Principal, error) {
	state := s.auth.now.Load()
	if !state.Enabled {
		return auth.Principal{}, nil
	}
	who, err := s.auth.caller(ctx, state)
	if err == nil {
		err = check(state, who)
	}
	if err == nil {
		return who, nil
	}
	if late := s.node.ReadBarrier(ctx); late != nil {
		return auth.Principal{}, err
	}
	state = s.auth.now.Load()
	if who, err = s.auth.caller(ctx, state); err == nil {
		err = check(state, who)
	}
	return who, err
}

// permitRead asks whether the caller may read what r reads, as far as this member
// knows. The reader asks Fresh once it has read: what it was permitted by must
// then still stand.
func (s *Server) permitRead(ctx context.Context, r accessor) (auth.Principal, error) {
	if !s.auth.now.Load().Enabled {
		return auth.Principal{}, nil
	}
	who, err := s.caller(ctx)
	if err != nil {
		return who, err
	}
	g := s.guard(who)
	return who, g.check(r)
}

// fresh refuses what was read by rights that have changed since.
func (s *Server) fresh(who auth.Principal) error { return s.auth.now.Load().Fresh(who) }

// guard is what checks the caller's access to keys, by the rights of this moment.
func (s *Server) guard(who auth.Principal) guard {
	return guard{state: s.auth.now.Load(), who: who, leaseKeys: leaseKeysOf(s.Store())}
}
