package server

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// refusalLog writes one line for each new reason why somebody was not let in,
// not one for each of his attempts.
type refusalLog struct {
	mu   sync.Mutex
	last map[string]*refusalLine // by remote host and reason
}

type refusalLine struct {
	at     time.Time
	unsaid int
}

const (
	// refusalEvery: the same line is written once in that time.
	refusalEvery = time.Minute
	// maxRefusals bounds what is remembered. A crowd of strangers may repeat a
	// line earlier.
	maxRefusals = 512
)

// due reports whether a refusal is worth a line now, and how many went unsaid.
func (r *refusalLog) due(key string, now time.Time) (unsaid int, due bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := r.last[key]
	if line != nil && now.Sub(line.at) < refusalEvery {
		line.unsaid++
		return 0, false
	}
	if line == nil {
		if len(r.last) >= maxRefusals {
			r.last = nil
		}
		if r.last == nil {
			r.last = map[string]*refusalLine{}
		}
		line = &refusalLine{}
		r.last[key] = line
	}
	unsaid, line.unsaid, line.at = line.unsaid, 0, now
	return unsaid, true
}

// refuse counts a connection that was not let in and says why. One that went
// away by itself, as port scans and load balancers do, is not worth a line.
func (g *gate) refuse(conn net.Conn, err error) {
	g.refused.Add(1)
	remote := conn.RemoteAddr().String()
	if passedBy(err) {
		g.log.Debug("a connection ended before it said anything", "listener", g.name, "remote", remote, "error", err)
		return
	}
	what := "refused a connection: the TLS handshake failed"
	var header tls.RecordHeaderError
	switch {
	case errors.Is(err, errTLSOnPlain):
		what = "refused a connection: TLS on a port that is served without TLS"
	case errors.As(err, &header):
		what = "refused a connection: plain text on a TLS port"
		g.answerPlain(header)
	case errors.Is(err, os.ErrDeadlineExceeded):
		what = "refused a connection: it did not open in time"
	}
	host, _, splitErr := net.SplitHostPort(remote)
	if splitErr != nil {
		host = remote
	}
	reason := err.Error()
	var op *net.OpError
	if errors.As(err, &op) { // its text has the port
		reason = op.Err.Error()
	}
	if unsaid, due := g.refusals.due(host+" "+what+reason, g.clock.Now()); due {
		g.log.Warn(what, "listener", g.name, "address", g.Addr().String(), "remote", remote, "error", err, "unsaid", unsaid)
	}
}

var errFull = errors.New("as many are open as this listener may have; a client's may have more when the process may open more files")

// sayFull writes, once in a while, that nobody is let in, and why.
func (g *gate) sayFull(why error) {
	if _, due := g.refusals.due(why.Error(), g.clock.Now()); due {
		g.log.Warn("cannot accept connections until others end", "listener", g.name, "address", g.Addr().String(), "most", cap(g.places), "error", why)
	}
}

func passedBy(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// answerPlain tells a person with a browser or curl what is wrong.
func (g *gate) answerPlain(e tls.RecordHeaderError) {
	if e.Conn == nil || g.http == nil {
		return
	}
	switch string(e.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET":
		io.WriteString(e.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n"+
			"This port is served with TLS: use https.\n")
	}
}
