package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/raft/transport"
)

// Joining a cluster that exists. The new member was added before, by its peer
// URLs; which id it was given only the cluster knows, so it asks the others.

// announcement is what a member tells whoever asks at its peer port.
type announcement struct {
	Cluster api.ClusterID `json:"clusterID"`
	From    api.MemberID  `json:"from"`
	Members []Member      `json:"members"`
}

const (
	// askTimeout bounds the question to one member, as in etcd.
	askTimeout = 10 * time.Second
	// announceTimeout is how long an answer waits to be the newest.
	announceTimeout = 2 * time.Second
)

// asker asks the member at a peer URL.
type asker func(ctx context.Context, url string) (*announcement, error)

// announce answers an asker. The answer is the newest if the cluster has a
// leader; a list that lacks the newcomer would turn it away.
func (s *Server) announce(ctx context.Context) ([]byte, error) {
	ctx, cancel := s.withTimeout(ctx, announceTimeout)
	defer cancel()
	if err := s.node.ReadBarrier(ctx); err != nil {
		s.log.Info("announcing members that may be outdated", slog.Any("error", err))
	}
	return s.announcement()
}

func (s *Server) announcement() ([]byte, error) {
	return json.Marshal(announcement{Cluster: s.cluster, From: s.id, Members: s.members.list()})
}

// askOver asks through real sockets, with the certificates of a peer.
func askOver(cfg *Config) asker {
	var sec *security
	return func(ctx context.Context, url string) (*announcement, error) {
		if sec == nil {
			var err error
			if sec, err = openSecurity(cfg); err != nil {
				return nil, err
			}
		}
		conn, err := sec.dialPeer(ctx, url)
		if err != nil {
			return nil, err
		}
		b, err := transport.Ask(ctx, conn)
		if err != nil {
			return nil, err
		}
		a := &announcement{}
		return a, json.Unmarshal(b, a)
	}
}

func (h *home) askOne(ask asker, url string, timeout time.Duration) (*announcement, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := h.cfg.Clock.AfterFunc(timeout, cancel)
	defer timer.Stop()
	return ask(ctx, url)
}

// ask asks the members in turn until one answers with a list in which this member
// has its place. One that lags, and cannot catch up without this member's vote, has
// not heard that it was added; so the others are asked as well.
func (h *home) ask(ask asker, given []Member) (*announcement, Member, error) {
	var failed []string
	var mismatch error
	for _, m := range given {
		if m.Name == h.cfg.Name {
			continue
		}
		for _, u := range m.PeerURLs {
			a, err := h.askOne(ask, u, askTimeout)
			if err == nil && (len(a.Members) == 0 || a.Cluster == 0) {
				err = errors.New("it knows of no members")
			}
			if err != nil {
				h.cfg.Logger.Warn("a member of the existing cluster does not answer", "url", u, "error", err)
				failed = append(failed, err.Error())
				continue
			}
			self, err := matchMembers(a, given, h.cfg.Name)
			if err == nil {
				return a, self, nil
			}
			if mismatch == nil {
				mismatch = fmt.Errorf("error validating peerURLs of cluster %s (%s): %w", a.Cluster, formatInitialCluster(a.Members), err)
			}
		}
	}
	if mismatch != nil {
		return nil, Member{}, mismatch
	}
	return nil, Member{}, fmt.Errorf("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs (%s)", strings.Join(failed, "; "))
}

// joinExisting makes an empty directory that of a member which was added to a
// running cluster. given is --initial-cluster: it must name exactly the members
// of that cluster, this one included.
func (h *home) joinExisting(ask asker, given []Member) (identity, []Member, error) {
	cfg := h.cfg
	none := identity{}
	if !named(given, cfg.Name) {
		return none, nil, fmt.Errorf("%w: couldn't find local name %q in the initial cluster configuration", ErrConfig, cfg.Name)
	}
	a, self, err := h.ask(ask, given)
	if err != nil {
		return none, nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	// etcd lets such a member in: it then votes although it has forgotten its log.
	if self.Name != "" || self.Incarnation != 0 {
		return none, nil, fmt.Errorf("%w (member %s is known to cluster %s as %q, but %s is empty)", ErrForgotten, self.ID, a.Cluster, self.Name, cfg.DataDir)
	}
	rows, err := json.Marshal(a.Members)
	if err != nil {
		return none, nil, err
	}
	cfg.Logger.Info("joining an existing cluster", "cluster", a.Cluster, "member", self.ID, "learner", self.Learner, "told_by", a.From)
	return identity{
		Cluster: a.Cluster, Member: self.ID, Name: cfg.Name, Token: cfg.ClusterToken,
		Initial: formatInitialCluster(given), Joined: string(rows),
	}, a.Members, nil
}

// matchMembers finds this member among those of the cluster by etcd's rule: each
// of them must be in the given list, by its URLs, and no others may.
func matchMembers(a *announcement, given []Member, name string) (Member, error) {
	if len(a.Members) != len(given) {
		return Member{}, errors.New("member count is unequal")
	}
	var self Member
	for _, m := range a.Members {
		i := slices.IndexFunc(given, func(g Member) bool { return sameEndpoints(m.PeerURLs, g.PeerURLs) })
		if i < 0 {
			return Member{}, fmt.Errorf("PeerURLs: no match found for existing member (%s, %s)", m.ID, strings.Join(m.PeerURLs, ","))
		}
		if given[i].Name == name {
			self = m
		}
	}
	if self.ID == 0 {
		return Member{}, fmt.Errorf("none of them has the URLs of %q", name)
	}
	return self, nil
}

// refuseForce says why this member must not be made the only one of its cluster:
// another one lives. The operator stops it first, or has left the flag behind.
func (h *home) refuseForce(ask asker, others []Member) error {
	for _, m := range others {
		if m.ID == h.identity.Member {
			continue
		}
		for _, u := range m.PeerURLs {
			a, err := h.askOne(ask, u, announceTimeout+time.Second)
			if err == nil && a.Cluster == h.identity.Cluster {
				return fmt.Errorf("%w: --force-new-cluster: member %s of this cluster lives at %s; stop all other members first, "+
					"or drop the flag if it has done its work already", ErrConfig, a.From, u)
			}
		}
	}
	return nil
}
