package direct

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The frames that are written here, and not by grpc-go.

func appendHead(b []byte, size int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	b = append(b, byte(size>>16), byte(size>>8), byte(size), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, id)
}

func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) []byte {
	return append(appendHead(b, len(payload), kind, flags, id), payload...)
}

// appendBlock writes a header block, in several frames if it is long.
func appendBlock(b []byte, flags http2.Flags, id uint32, block []byte) []byte {
	kind := http2.FrameHeaders
	for len(block) > frameBytes {
		b = appendFrame(b, kind, flags, id, block[:frameBytes])
		kind, flags, block = http2.FrameContinuation, 0, block[frameBytes:]
	}
	return appendFrame(b, kind, flags|http2.FlagHeadersEndHeaders, id, block)
}

func appendReset(b []byte, id uint32, code http2.ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, http2.FrameRSTStream, 0, id), uint32(code))
}

func appendWindow(b []byte, id, more uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, 4, http2.FrameWindowUpdate, 0, id), more)
}

func appendPong(b []byte, data [8]byte) []byte {
	return appendFrame(b, http2.FramePing, http2.FlagPingAck, 0, data[:])
}

// Header blocks of answers. Their fields enter no table (RFC 7541, 6.2.3): grpc-go
// keeps one for this connection.
var succeeded = encode("grpc-status", "0", "grpc-message", "")

// kind is what a client calls the messages' encoding.
type kind struct {
	name     string
	answered []byte // the block before a message
}

var kinds = map[string]*kind{
	"application/grpc":       newKind("application/grpc"),
	"application/grpc+proto": newKind("application/grpc+proto"),
}

func newKind(name string) *kind {
	return &kind{name, encode(":status", "200", "content-type", name)}
}

func encode(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		f := hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}
		f.Sensitive = !f.IsPseudo()
		_ = e.WriteField(f) // to memory
	}
	return b.Bytes()
}

// begins is the block before the messages of a stream.
func (k *kind) begins(header metadata.MD) []byte {
	if len(header) == 0 {
		return k.answered
	}
	return encode(appendMD([]string{":status", "200", "content-type", k.name}, header)...)
}

// ends is the block after all messages, or instead of any.
func (k *kind) ends(begun bool, s *status.Status, trailer metadata.MD) []byte {
	var pairs []string
	if !begun {
		pairs = []string{":status", "200", "content-type", k.name}
	}
	pairs = append(pairs, "grpc-status", strconv.Itoa(int(s.Code())), "grpc-message", escape(s.Message()))
	if p := s.Proto(); len(p.GetDetails()) > 0 {
		if text, err := proto.Marshal(p); err == nil {
			pairs = append(pairs, "grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(text))
		}
	}
	return encode(appendMD(pairs, trailer)...)
}

func appendMD(pairs []string, md metadata.MD) []string {
	for name, values := range md {
		for _, v := range values {
			pairs = append(pairs, name, v)
		}
	}
	return pairs
}

// escape writes a message as gRPC's headers have it.
func escape(s string) string {
	var b []byte
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			b = fmt.Appendf(b, "%%%02X", c)
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}
