package kube

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Request is one HTTP request of a file of them, whose paragraphs are
//
//   - what it shows
//     [&] [@USER] METHOD PATH
//     Header: value
//     the body
//     = NAME PATH
//
// The last lines keep a value of the answer's JSON, which ${NAME} stands for in what
// follows; ${fill-N} is a text of N bytes. A request with & runs beside the next ones:
// its answer is that of the paragraph with the line "end", which waits for it.
type Request struct {
	Title, Section string

	beside, end  bool
	user         string
	method, path string
	header       http.Header
	body         string
	keep         [][2]string
}

// ReadRequests reads a file of requests.
func ReadRequests(path string) ([]Request, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Request
	section, known := "", map[string]bool{}
	var lines []string
	finish := func() error {
		if len(lines) == 0 {
			return nil
		}
		r, err := parseRequest(lines)
		if err == nil && known[r.Title] {
			err = errors.New("the title is another's, too")
		}
		if err != nil {
			return fmt.Errorf("%s: %q: %w", path, lines, err)
		}
		r.Section, known[r.Title], lines = section, true, nil
		out = append(out, r)
		return nil
	}
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		line := strings.TrimRight(scan.Text(), " ")
		text, isSection := strings.CutPrefix(line, "# ")
		switch {
		case line == "" || isSection:
			if err := finish(); err != nil {
				return nil, err
			}
			if isSection {
				section = text
			}
		default:
			lines = append(lines, line)
		}
	}
	return out, errors.Join(finish(), scan.Err())
}

var headerLine = regexp.MustCompile(`^([A-Z][A-Za-z-]*): (.*)$`)

func parseRequest(lines []string) (Request, error) {
	r := Request{header: http.Header{}}
	title, ok := strings.CutPrefix(lines[0], "- ")
	if !ok || len(lines) < 2 {
		return r, errors.New("a paragraph is a title and a request")
	}
	r.Title = title
	if lines[1] == "end" {
		r.end = true
		return r, nil
	}
	words := strings.Fields(lines[1])
	for len(words) > 2 && (words[0] == "&" || words[0][0] == '@') {
		if words[0] == "&" {
			r.beside = true
		} else {
			r.user = words[0][1:]
		}
		words = words[1:]
	}
	if len(words) != 2 {
		return r, errors.New("a request is a method and a path")
	}
	r.method, r.path = words[0], words[1]
	rest := lines[2:]
	for len(rest) > 0 {
		m := headerLine.FindStringSubmatch(rest[0])
		if m == nil {
			break
		}
		r.header.Add(m[1], m[2])
		rest = rest[1:]
	}
	for len(rest) > 0 && strings.HasPrefix(rest[len(rest)-1], "= ") {
		name, path, ok := strings.Cut(rest[len(rest)-1][2:], " ")
		if !ok {
			return r, errors.New("what is kept is a name and a path")
		}
		r.keep = append(r.keep, [2]string{name, path})
		rest = rest[:len(rest)-1]
	}
	r.body = strings.Join(rest, "\n")
	return r, nil
}

// Answer is what a server said, as far as it is compared.
type Answer struct {
	Code   int
	Header map[string]any
	Body   []byte
	Error  string // there was no answer, or it broke off
}

// comparedHeaders are those that clients read.
var comparedHeaders = []string{"Content-Type", "Warning", "Retry-After", "Cache-Control", "Allow", "Location", "Www-Authenticate", "X-Content-Type-Options"}

// Caller sends requests to one server and keeps what they ask to be kept.
type Caller struct {
	target Target
	client *http.Client
	kept   map[string]string
	beside chan Answer
}

// NewCaller makes one.
func NewCaller(t Target) (*Caller, error) {
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &Caller{target: t, kept: map[string]string{}, client: &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, DisableCompression: true},
	}}, nil
}

// answerLimit ends a request that hangs, which is then a difference.
const answerLimit = 90 * time.Second

// Do sends a request. One that runs beside has no answer yet.
func (c *Caller) Do(ctx context.Context, r Request) Answer {
	if r.end {
		if c.beside == nil {
			return Answer{Error: "nothing runs beside"}
		}
		a := <-c.beside
		c.beside = nil
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	resp, err := c.send(ctx, r)
	if err != nil {
		cancel()
		return Answer{Error: err.Error()}
	}
	if r.beside {
		done := make(chan Answer, 1)
		go func() { done <- read(resp); cancel() }()
		c.beside = done
		return Answer{Code: resp.StatusCode}
	}
	defer cancel()
	a := read(resp)
	o, err := Parse(string(a.Body))
	for _, k := range r.keep {
		c.kept[k[0]] = fmt.Sprint(at(o, k[1]))
	}
	if err != nil && len(r.keep) > 0 {
		a.Error = "nothing to keep: " + err.Error()
	}
	return a
}

func (c *Caller) send(ctx context.Context, r Request) (*http.Response, error) {
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(c.filled(r.body))
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.target.URL+c.filled(r.path), body)
	if err != nil {
		return nil, err
	}
	token := c.target.Token
	if r.user != "" {
		token = TokenOf(r.user)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("User-Agent", "compat/1")
	req.Header.Set("Accept", "application/json")
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, values := range r.header {
		req.Header[name] = values
		if values[0] == "none" {
			delete(req.Header, name)
		}
	}
	return c.client.Do(req)
}

func read(resp *http.Response) Answer {
	defer resp.Body.Close()
	a := Answer{Code: resp.StatusCode, Header: map[string]any{}}
	for _, name := range comparedHeaders {
		if v := resp.Header.Values(name); len(v) > 0 {
			a.Header[name] = strings.Join(v, " | ")
		}
	}
	var err error
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		a.Error = err.Error()
	}
	return a
}

var placeholder = regexp.MustCompile(`\$\{(fill-)?(\w+)\}`)

// filled puts what was kept where ${NAME} stands.
func (c *Caller) filled(s string) string {
	return placeholder.ReplaceAllStringFunc(s, func(p string) string {
		m := placeholder.FindStringSubmatch(p)
		if m[1] != "" {
			n, _ := strconv.Atoi(m[2]) // not a number: nothing, which the answer shows
			return strings.Repeat("x", n)
		}
		return c.kept[m[2]]
	})
}

// at finds a value by a path of names and indexes, like .items.0.metadata.name.
func at(v any, path string) any {
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "."), ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}
