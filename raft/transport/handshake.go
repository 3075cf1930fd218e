package transport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/api"
)

// protocolVersion is raised when an older member could misread what a newer one
// sends. Fields that the older one may skip need no raise.
const protocolVersion = "2"

// Every RPC opens with these metadata keys. The server checks them before it
// reads anything else, and answers a stream with its own identity as header.
const (
	keyProtocol = "keelson-protocol"
	keyCluster  = "keelson-cluster"
	keyFrom     = "keelson-from"
	keyTo       = "keelson-to"
	// keyIncarnation is the mark of the sender's data directory.
	keyIncarnation = "keelson-incarnation"
	// keyURL, once for each, is where the sender can be reached.
	keyURL     = "keelson-url"
	keyRefusal = "keelson-refusal" // in the trailer: which refusal it was
)

// Refusals of a handshake.
var (
	ErrWrongCluster  = errors.New("the peer belongs to another cluster")
	ErrWrongMember   = errors.New("another member answers at this address")
	ErrRemoved       = errors.New("this member was removed from the cluster")
	ErrForgotten     = errors.New("this member has lost the data directory with which it belongs to the cluster")
	ErrWrongProtocol = errors.New("the peer speaks another protocol version")
)

// refusals gives each refusal its name on the wire.
var refusals = map[string]error{
	"wrong-cluster":  ErrWrongCluster,
	"wrong-member":   ErrWrongMember,
	"removed":        ErrRemoved,
	"forgotten":      ErrForgotten,
	"wrong-protocol": ErrWrongProtocol,
}

// identity is who speaks to whom.
type identity struct {
	cluster  api.ClusterID
	from, to api.MemberID
}

// outgoing returns a context that carries the handshake of an RPC to the peer.
func (l *link) outgoing(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, l.t.metadata(l.identity()))
}

// metadata is a handshake of this member's.
func (t *GRPC) metadata(id identity) metadata.MD {
	md := id.metadata()
	md.Set(keyIncarnation, strconv.FormatUint(t.cfg.Incarnation, 16))
	md.Append(keyURL, t.cfg.URLs...)
	return md
}

// Bounds of what is believed of a stranger.
const (
	maxStrangers   = 16
	strangerURLs   = 8
	strangerLength = 1 << 10 // of a URL
)

// introduce makes a link to a member that speaks to this one and is not among its
// peers: this one lags behind the other's addition, and had no way to answer it.
func (t *GRPC) introduce(from api.MemberID, urls []string) {
	tooLong := func(u string) bool { return len(u) > strangerLength }
	if len(urls) == 0 || len(urls) > strangerURLs || slices.ContainsFunc(urls, tooLong) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed || t.mu.links[from] != nil || t.mu.removed[from] || len(t.mu.strangers) >= maxStrangers {
		return
	}
	l := newLink(t, Peer{ID: from, URLs: urls})
	t.mu.links[from], t.mu.strangers[from] = l, true
	l.begin()
}

// markOf returns the mark of a data directory in a handshake; 0 is nobody's.
func markOf(md metadata.MD) uint64 {
	if v := md.Get(keyIncarnation); len(v) == 1 {
		if n, err := strconv.ParseUint(v[0], 16, 64); err == nil {
			return n
		}
	}
	return 0
}

// refusalLocked says why a member whose data directory has that mark is not heard:
// it was removed, or comes with another directory than the cluster knows it by. Such a
// member has forgotten its log and its votes: heard as its old self, it could elect
// a leader that lacks acknowledged writes.
func (t *GRPC) refusalLocked(from api.MemberID, mark uint64) error {
	known := t.mu.incarnations[from] // 0: it has not told the cluster yet
	switch {
	case t.mu.removed[from]:
		return ErrRemoved
	case known != 0 && known != mark:
		return ErrForgotten
	}
	return nil
}

func (t *GRPC) refusal(from api.MemberID, mark uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusalLocked(from, mark)
}

func (id identity) metadata() metadata.MD {
	return metadata.Pairs(
		keyProtocol, protocolVersion,
		keyCluster, id.cluster.String(),
		keyFrom, id.from.String(),
		keyTo, id.to.String(),
	)
}

// parseIdentity reads a handshake. Each key must be there exactly once.
func parseIdentity(md metadata.MD) (identity, error) {
	if v := md.Get(keyProtocol); len(v) != 1 || v[0] != protocolVersion {
		return identity{}, fmt.Errorf("%w: it has %.40q, this member %q", ErrWrongProtocol, v, protocolVersion)
	}
	var ids [3]uint64
	for i, key := range []string{keyCluster, keyFrom, keyTo} {
		v := md.Get(key)
		if len(v) != 1 {
			return identity{}, fmt.Errorf("%w: %d values of %s", errMalformed, len(v), key)
		}
		n, err := strconv.ParseUint(v[0], 16, 64)
		if err != nil {
			return identity{}, fmt.Errorf("%w: %s %.40q", errMalformed, key, v[0])
		}
		ids[i] = n
	}
	return identity{api.ClusterID(ids[0]), api.MemberID(ids[1]), api.MemberID(ids[2])}, nil
}

// check says whether this member may be spoken to in that way.
func (id identity) check(cluster api.ClusterID, self api.MemberID) error {
	switch {
	case id.cluster != cluster:
		return fmt.Errorf("%w: it has %s, this member %s", ErrWrongCluster, id.cluster, cluster)
	case id.to != self:
		return fmt.Errorf("%w: %s was meant, this is %s", ErrWrongMember, id.to, self)
	case id.from == 0 || id.from == self:
		return fmt.Errorf("%w: it calls itself %s", ErrWrongMember, id.from)
	}
	return nil
}

// refusal turns a failed check into what the client is sent.
func refusal(err error) (metadata.MD, error) {
	for name, sentinel := range refusals {
		if errors.Is(err, sentinel) {
			return metadata.Pairs(keyRefusal, name), status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	return nil, status.Error(codes.InvalidArgument, err.Error())
}

// refused returns the typed refusal that the server sent, or err as it is.
func refused(err error, trailer metadata.MD) error {
	v := trailer.Get(keyRefusal)
	if err == nil || len(v) != 1 || refusals[v[0]] == nil {
		return err
	}
	why := refusals[v[0]]
	if text := status.Convert(err).Message(); text != why.Error() {
		return fmt.Errorf("%w (%s)", why, text)
	}
	return why
}
