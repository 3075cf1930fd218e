package resource

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"sigs.k8s.io/yaml"

	"github.com/keelson-io/keelson/server/resource/object"
)

const jsonType = "application/json"

// send answers with a whole body, which is JSON unless the content type says something else.
func (c *call) send(code int, body []byte) error {
	if t := c.w.Header().Get("Content-Type"); c.form != nil && c.form.yaml && (t == "" || t == jsonType) {
		var err error
		if body, err = inYAML(body); err != nil {
			return err
		}
		c.w.Header().Set("Content-Type", yamlType)
	}
	if len(body) >= gzipBytes && c.takesGzip() {
		out := c.streamCode(code, len(body))
		return out.end(body)
	}
	h := c.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", jsonType)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(code)
	_, _ = c.w.Write(body) // who has left is told nothing
	return nil
}

// inYAML is JSON as YAML. To make it of a long list takes many times the memory.
func inYAML(b []byte) ([]byte, error) {
	if len(b) > maxYAMLBytes {
		return nil, tooLongForYAML()
	}
	return yaml.JSONToYAML(b)
}

func tooLongForYAML() error {
	return notAcceptable("so long an answer is given in %s only; limit=500 makes it shorter", jsonType)
}

// sendObject answers with one object's stamped bytes, in the form that was asked for.
func (c *call) sendObject(code int, b []byte) error { return c.send(code, c.form.one(b)) }

// fail answers with a failure.
func (c *call) fail(err error) {
	f := failureOf(err)
	if asFailure(err) == nil && errors.Is(context.Cause(c.ctx), context.DeadlineExceeded) {
		f = timedOut()
		if c.r.ProtoMajor == 1 {
			c.w.Header().Set("Connection", "close") // what is left of the body is on it
		}
	}
	if f.Code >= http.StatusInternalServerError {
		c.layer.log.Warn("a request failed", "verb", c.verb, "path", c.r.URL.Path, "error", err)
	}
	c.w.Header().Del("Content-Encoding")
	if f.Plain != "" {
		_ = c.sendText(f.Code, f.Plain) // who has left is told nothing
		return
	}
	c.w.Header().Set("Content-Type", jsonType)
	if f.RetryAfter > 0 {
		c.w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	_ = c.send(f.Code, append(object.Encode(f.status()), '\n')) // who has left is told nothing
}

// sendText answers people and probes.
func (c *call) sendText(code int, text string) error {
	h := c.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	return c.send(code, []byte(text))
}

func (c *call) takesGzip() bool {
	return strings.Contains(c.r.Header.Get("Accept-Encoding"), "gzip")
}

// gzipSpeed is gzip's fastest level, as in a kube-apiserver.
const gzipSpeed = gzip.BestSpeed

var gzips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, gzipSpeed) // the level is a valid one
	return z
}}

// stream is a long answer, written in pieces.
type stream struct {
	to  io.Writer
	zip *gzip.Writer
	buf []byte
}

func (c *call) stream(size int) *stream { return c.streamCode(http.StatusOK, size) }

// streamCode begins an answer of about size bytes.
func (c *call) streamCode(code, size int) *stream {
	s := &stream{to: c.w, buf: make([]byte, 0, min(size, flushBytes+flushBytes/4))}
	if size >= gzipBytes && c.takesGzip() {
		c.zippedHead(code)
		s.zip = gzips.Get().(*gzip.Writer)
		s.zip.Reset(c.w)
		s.to = s.zip
		return s
	}
	c.w.Header().Set("Content-Type", jsonType)
	c.w.WriteHeader(code)
	return s
}

// zippedHead begins an answer in gzip.
func (c *call) zippedHead(code int) {
	if c.w.Header().Get("Content-Type") == "" {
		c.w.Header().Set("Content-Type", jsonType)
	}
	c.w.Header().Set("Content-Encoding", "gzip")
	c.w.Header().Add("Vary", "Accept-Encoding")
	c.w.WriteHeader(code)
}

// room is the buffer to append the next piece to.
func (s *stream) room() []byte { return s.buf[:0] }

func (s *stream) write(b []byte) error {
	s.buf = b[:0]
	_, err := s.to.Write(b)
	return err
}

// end writes the last piece. An error means that the client has left, which
// changes nothing any more.
func (s *stream) end(b []byte) error {
	_, _ = s.to.Write(b)
	if s.zip != nil {
		_ = s.zip.Close()
		gzips.Put(s.zip)
	}
	return nil
}
