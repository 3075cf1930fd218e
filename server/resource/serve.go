package resource

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/keelson-io/keelson/clock"
)

// Config is what the layer needs to know. It does not change.
type Config struct {
	Store  Store
	Clock  clock.Clock
	Logger *slog.Logger
	// Random fills a slice with bytes that nobody can guess: uids, names, audit ids.
	Random func([]byte)
	// Authorize asks RBAC objects who may do what; otherwise everybody may.
	Authorize bool
	// Tokens knows bearer tokens; nil: there are none.
	Tokens Tokens
	// ServiceIPs is the range of the cluster IPs of Services, of IPv4.
	ServiceIPs netip.Prefix
}

// Layer serves the Kubernetes API.
type Layer struct {
	cfg     Config
	store   Store
	clock   clock.Clock
	log     *slog.Logger
	feed    *feed
	catalog atomic.Pointer[catalog]
	places  places
	leases  eventLeases
	pulse   pulse
	pieces  pieces
	crowds  crowds

	judgement judgement
	defining  sync.Mutex // one makes the catalog at a time
	defined   int64      // the revision of the definitions that the catalog has; under defining
}

// New makes a layer; Run brings it to life.
func New(cfg Config) *Layer {
	l := &Layer{cfg: cfg, store: cfg.Store, clock: cfg.Clock, log: cfg.Logger}
	l.feed = newFeed(l.store, l.clock, l.log)
	l.places = newPlaces()
	l.catalog.Store(newCatalog(builtinKinds()))
	return l
}

// CachedBytes is what the objects take that the layer keeps for lists.
func (l *Layer) CachedBytes() uint64 { return l.feed.bytes() }

// storage returns the kind that the objects of k are stored as.
func (l *Layer) storage(k *Kind) *Kind {
	if s := l.catalog.Load().storage(k.Prefix); s != nil {
		return s
	}
	return k
}

func (l *Layer) random64() uint64 {
	var b [8]byte
	l.cfg.Random(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// newUID makes a random UUID (version 4).
func (l *Layer) newUID() string {
	var b [16]byte
	l.cfg.Random(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// withTimeout is context.WithTimeout by the layer's clock.
func (l *Layer) withTimeout(ctx context.Context, d time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := l.clock.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return ctx, func() { timer.Stop(); cancel(nil) }
}

// call is one request on its way.
type call struct {
	Target
	layer *Layer
	w     http.ResponseWriter
	r     *http.Request
	ctx   context.Context
	query url.Values
	user  *User
	verb  string
	kind  *Kind
	form  *form

	bounds *bounds // of its time
}

// ServeHTTP answers a request. The order is a kube-apiserver's: who is it, is there
// room, may they, what is it.
func (l *Layer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{layer: l, w: w, r: r, ctx: r.Context(), query: r.URL.Query()}
	c.audit()
	c.bound()
	defer c.bounds.lift()
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

// audit gives the request an id by which it can be found in logs of both sides.
func (c *call) audit() {
	id := c.r.Header.Get("Audit-Id")
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool { return r < '!' || r > '~' }) {
		var b [16]byte
		c.layer.cfg.Random(b[:])
		id = hex.EncodeToString(b[:])
	}
	c.w.Header().Set("Audit-Id", id)
	c.w.Header().Set("Cache-Control", "no-cache, private")
}

func (c *call) serve() error {
	var err error
	if c.user, err = c.authenticate(); err != nil {
		return err
	}
	if err := c.impersonate(); err != nil {
		return c.sealed(err)
	}
	target, isResource := targetOf(c.r.URL.Path)
	if !isResource {
		if err := c.authorizePath(); err != nil {
			return c.sealed(err)
		}
		return c.servePath()
	}
	c.Target = target
	watch := target.Watch || target.Name == "" && truth(c.query.Get("watch"))
	if watch {
		c.query.Set("watch", "true") // whichever way it was asked
		c.bounds.lift()              // it has others
		c.ctx = c.r.Context()
	} else if err := c.tighten(); err != nil {
		return err
	}
	c.verb = verbOf(c.r.Method, target, watch)
	if err := c.authorize(); err != nil {
		return c.sealed(err)
	}
	leave, err := c.layer.places.enter(c)
	if err != nil {
		return err
	}
	defer leave()
	if c.kind, err = c.layer.kindAt(c.ctx, c.Group, c.Version, c.Plural); err != nil {
		return err
	}
	if c.form, err = formOf(c.kind, c.r, c.layer.clock.Now().Unix()); err != nil {
		return err
	}
	if c.Sub != "" {
		return c.subresource()
	}
	return c.dispatch()
}

// dispatch serves the resource itself.
func (c *call) dispatch() error {
	if err := c.misplaced(); err != nil {
		return err
	}
	if warning := deprecated[c.kind.APIVersion()+" "+c.kind.Name]; warning != "" {
		c.warn(warning)
	}
	if c.kind.Prefix == "" {
		return c.unstored()
	}
	switch c.verb {
	case "get":
		return c.get()
	case "list":
		return c.list()
	case "watch":
		return c.watch()
	case "create":
		return c.create()
	case "update":
		return c.update()
	case "patch":
		return c.patch()
	case "delete":
		return c.delete()
	case "deletecollection":
		return c.deleteCollection()
	}
	return notAllowed()
}

// unstored serves a resource that has no objects in the store.
func (c *call) unstored() error {
	switch c.kind.qualified() {
	case "bindings":
		return c.bindNamed()
	case "componentstatuses":
		return c.components()
	}
	return c.review()
}

// misplaced refuses what the path does not allow: objects of a namespace are read
// across all of them, and written and deleted in their own.
func (c *call) misplaced() error {
	everywhere := c.kind.Namespaced && c.Namespace == ""
	reads := c.verb == "list" || c.verb == "watch"
	one := c.verb == "get" || c.verb == "update" || c.verb == "patch" || c.verb == "delete"
	switch {
	case everywhere && c.Name != "", !c.kind.Namespaced && c.Namespace != "":
		return noSuchPath()
	case everywhere && !reads, !reads && one != (c.Name != ""), !c.kind.can(c.verb):
		return notAllowed()
	}
	if why := content.IsPathSegmentName(c.Name); why != nil {
		return badRequest("Name parameter invalid: %q: %s", c.Name, why[0])
	}
	return nil
}

// deprecated are kinds that users are told not to use any more.
var deprecated = map[string]string{
	"v1 ComponentStatus": "v1 ComponentStatus is deprecated in v1.19+",
	"v1 Endpoints":       "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}

// get answers GET of one object.
func (c *call) get() error {
	if err := c.form.fits(false); err != nil {
		return err
	}
	cur, err := c.layer.read(c.ctx, c.kind, c.Namespace, c.Name, c.query.Get("resourceVersion"))
	if err != nil {
		return err
	}
	if cur == nil {
		return notFound(c.kind, c.Name)
	}
	return c.sendObject(http.StatusOK, cur.stamped())
}

// sealed makes a browser take a refusal for what it says that it is.
func (c *call) sealed(err error) error {
	c.w.Header().Set("X-Content-Type-Options", "nosniff")
	return err
}

// body reads the request's body, within bounds.
func (c *call) body() ([]byte, error) {
	return c.bounds.within(func() ([]byte, error) {
		return io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBodyBytes))
	})
}
