package server

import (
	"log/slog"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/clock"
)

// Server is one member: consensus, store and the services of the client port.
//
// Fields are set by New and do not change afterwards; each of them is safe for
// concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	clock   clock.Clock
	id      api.MemberID
	cluster api.ClusterID
}

// Fields of etcdserverpb.ResponseHeader.
const (
	fieldHeaderCluster  = 1
	fieldHeaderMember   = 2
	fieldHeaderRevision = 3
	fieldHeaderTerm     = 4
)

// appendHeader appends the content of a ResponseHeader (without tag and length)
// for an answer given at rev. Zero fields are left out, as protobuf does.
func (s *Server) appendHeader(b []byte, rev api.Revision, term api.Term) []byte {
	b = appendUint(b, fieldHeaderCluster, uint64(s.cluster))
	b = appendUint(b, fieldHeaderMember, uint64(s.id))
	b = appendUint(b, fieldHeaderRevision, uint64(rev))
	return appendUint(b, fieldHeaderTerm, uint64(term))
}

// appendUint appends a varint field unless it is zero.
func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}
