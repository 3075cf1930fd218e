package server

import (
	"bytes"
	"context"
	"log/slog"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
)

// maxLoginRounds bounds how often a login begins anew because its user changed
// while the password was verified.
const maxLoginRounds = 8

// authenticate gives a token for a name and a password. Nothing is replicated:
// any member can verify the token by what it knows of the user (see package auth).
// Neither password nor token ever reaches a log, an error or another member.
func (s *Server) authenticate(ctx context.Context, r *message[pb.AuthenticateRequest]) (*Encoded, error) {
	name, password := r.m.Name, r.m.Password
	r.m.Password = "" // whoever shows the request later shows no secret
	if err := s.node.ReadBarrier(ctx); err != nil {
		return nil, err
	}
	for range maxLoginRounds {
		token, err := s.login(ctx, name, password)
		if err != nil {
			return nil, err
		}
		if token == "" {
			continue
		}
		fields, err := proto.Marshal(&pb.AuthenticateResponse{Token: token})
		if err != nil {
			return nil, err
		}
		return s.answer(fields, s.Store().Revision(), s.node.Status().Term), nil
	}
	return nil, api.ErrTooManyRequests
}

// login verifies a password and makes a token. It returns none when the user
// changed meanwhile, or when the cluster had no secret and has one now.
func (s *Server) login(ctx context.Context, name, password string) (string, error) {
	a, client := s.auth, clientAddress(ctx)
	state := a.now.Load()
	if !state.Enabled {
		return "", api.ErrAuthNotEnabled
	}
	hash, open, known := state.Password(name)
	if known && !open {
		return "", api.ErrNoPasswordUser
	}
	if !a.throttle.Allow(name, client) {
		return "", api.ErrTooManyRequests
	}
	if err := a.passwords.Verify(ctx, name, hash, password); err != nil {
		if err == error(api.ErrAuthFailed) {
			a.throttle.Failed(name, client)
			a.log.Warn("failed login", slog.String("user", name), slog.String("client", client))
		}
		return "", err
	}
	a.throttle.Passed(name, client)
	if a.tokens.NeedsSecret() && state.Secret() == nil {
		_, err := s.node.Propose(ctx, commandAuthSecret, "", randomBytes())
		return "", proposalError(err)
	}
	state = a.now.Load()
	if now, _, known := state.Password(name); !known || !bytes.Equal(now, hash) || !state.Enabled {
		return "", nil
	}
	return a.tokens.Assign(state, name)
}
