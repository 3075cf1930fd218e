package direct

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/metadata"
)

// headers undoes the compression of the client's header blocks, and does that of
// what passes to grpc-go. The reader owns it.
type headers struct {
	most   uint32 // bytes of a block's fields, as in SETTINGS_MAX_HEADER_LIST_SIZE
	dec    *hpack.Decoder
	fields []hpack.HeaderField
	size   uint32
	raw    int // bytes of the block so far

	enc *hpack.Encoder
	out bytes.Buffer

	base context.Context
	last shape // of the call that came last
}

// shape is what calls of one client have in common: all fields, but for the values of those
// that differ from call to call.
type shape struct {
	fields []hpack.HeaderField
	ctx    context.Context
	kind   *kind
}

const tableBytes = 4096 // of HPACK, unless somebody sets another size; nobody does

var errHeaders = errors.New("a block of headers that is too long")

func newHeaders(ctx context.Context, most uint32) *headers {
	h := &headers{most: most, base: ctx}
	h.dec = hpack.NewDecoder(tableBytes, h.add)
	h.enc = hpack.NewEncoder(&h.out)
	return h
}

// add keeps a field, unless the block has too many: the first of those is enough for grpc-go
// to refuse it.
func (h *headers) add(f hpack.HeaderField) {
	if h.size <= h.most {
		h.fields = append(h.fields, f)
	}
	if f.Size() > h.most-min(h.most, h.size) {
		h.size = h.most + 1
		return
	}
	h.size += f.Size()
}

// read takes a fragment of a block. Its bound also holds for what the decoder keeps of a field
// that is not whole yet.
func (h *headers) read(fragment []byte, isLast bool) error {
	if h.raw += len(fragment); h.raw > 2*int(h.most)+tableBytes {
		return errHeaders
	}
	if _, err := h.dec.Write(fragment); err != nil || !isLast {
		return err
	}
	return h.dec.Close()
}

// reset forgets the block.
func (h *headers) reset() {
	clear(h.fields)
	h.fields, h.size, h.raw = h.fields[:0], 0, 0
}

// encoded is the block for grpc-go; valid until the next one.
func (h *headers) encoded() []byte {
	h.out.Reset()
	for _, f := range h.fields {
		_ = h.enc.WriteField(f) // to memory
	}
	return h.out.Bytes()
}

// Fields of calls that differ from one to the next.
const (
	fieldPath    = ":path"
	fieldTimeout = "grpc-timeout"
)

// call reads the block as a call. False: grpc-go has to say what it is.
func (h *headers) call(methods, streams []string) (c *Call, isStream, ok bool) {
	if h.size > h.most {
		return nil, false, false
	}
	c = &Call{}
	same := len(h.fields) == len(h.last.fields)
	path := ""
	for i, f := range h.fields {
		switch f.Name {
		case fieldPath:
			path = f.Value
		case fieldTimeout:
			if c.Timeout, ok = parseTimeout(f.Value); !ok {
				return nil, false, false
			}
		default:
			same = same && f.Value == h.last.fields[i].Value
		}
		same = same && f.Name == h.last.fields[i].Name
	}
	if c.Method = slices.Index(methods, path); c.Method < 0 {
		c.Method, isStream = slices.Index(streams, path), true
	}
	if c.Method < 0 || !same && !h.learn() {
		return nil, false, false
	}
	c.Context, c.kind = h.last.ctx, h.last.kind
	return c, isStream, true
}

// learn makes the block the shape of the calls to come, if it is a plain one.
func (h *headers) learn() bool {
	md, ok := plain(h.fields)
	if !ok {
		return false
	}
	h.last = shape{slices.Clone(h.fields), metadata.NewIncomingContext(h.base, md), kinds[md["content-type"][0]]}
	return true
}

// plain returns the metadata of a call's headers as grpc-go would, if there is nothing about them
// that it would look at twice.
func plain(fields []hpack.HeaderField) (metadata.MD, bool) {
	md := metadata.MD{}
	pseudo := map[string]bool{}
	for i, f := range fields {
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return nil, false
		}
		if f.IsPseudo() {
			if pseudo[f.Name] || i != len(pseudo) {
				return nil, false
			}
			pseudo[f.Name] = true
			switch {
			case f.Name == ":method" && f.Value == "POST", f.Name == ":scheme" && (f.Value == "http" || f.Value == "https"), f.Name == fieldPath:
			case f.Name == ":authority" && f.Value != "":
				md[f.Name] = []string{f.Value}
			default:
				return nil, false
			}
			continue
		}
		if !httpguts.ValidHeaderFieldName(f.Name) || strings.ToLower(f.Name) != f.Name {
			return nil, false
		}
		switch f.Name {
		case "content-type":
			if kinds[f.Value] == nil || md[f.Name] != nil {
				return nil, false
			}
		case "te":
			if f.Value != "trailers" {
				return nil, false
			}
			continue
		case fieldTimeout:
			continue
		case "grpc-accept-encoding", "user-agent":
		case "connection", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
			return nil, false
		default:
			if strings.HasPrefix(f.Name, "grpc-") || strings.HasSuffix(f.Name, "-bin") {
				return nil, false
			}
		}
		md[f.Name] = append(md[f.Name], f.Value)
	}
	return md, len(pseudo) == 4 && md["content-type"] != nil
}

// timeoutUnits of gRPC's timeouts.
var timeoutUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// parseTimeout reads a timeout. One that is none, or has passed, is not ok.
func parseTimeout(s string) (time.Duration, bool) {
	const digits = 8
	if len(s) < 2 || len(s) > digits+1 {
		return 0, false
	}
	unit := timeoutUnits[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if err != nil || n == 0 || unit == 0 || unit == time.Hour && n > 1<<20 {
		return 0, false
	}
	return time.Duration(n) * unit, true
}
