package server

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// Member is one member of the cluster. Its JSON is etcd's value in the bucket
// "members", field for field, so that etcd's tools read our files.
type Member struct {
	ID         api.MemberID `json:"id"`
	PeerURLs   []string     `json:"peerURLs"`
	Learner    bool         `json:"isLearner,omitempty"`
	Name       string       `json:"name,omitempty"` // empty until the member has started once
	ClientURLs []string     `json:"clientURLs,omitempty"`
	// Incarnation marks the member's data directory. It is ours alone; etcd skips
	// the field. 0 until the member has started once.
	Incarnation uint64 `json:"keelsonIncarnation,omitempty"`
}

// memberID is etcd's rule: the first eight bytes of the SHA-1 of the sorted
// peer URLs followed by the token. For a member that is added later the token is
// the time, in whole seconds since 1970.
func memberID(peerURLs []string, token string) api.MemberID {
	return api.MemberID(firstEight(strings.Join(slices.Sorted(slices.Values(peerURLs)), "") + token))
}

// clusterID is etcd's rule: the first eight bytes of the SHA-1 of the sorted
// member ids, eight big-endian bytes each.
func clusterID(members []Member) api.ClusterID {
	ids := make([]uint64, len(members))
	for i, m := range members {
		ids[i] = uint64(m.ID)
	}
	slices.Sort(ids)
	b := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return api.ClusterID(firstEight(string(b)))
}

func firstEight(s string) uint64 {
	sum := sha1.Sum([]byte(s))
	return binary.BigEndian.Uint64(sum[:8])
}

// parseInitialCluster reads "name=url,name=url…"; a name may occur several
// times, once for each of its URLs. The members come back in the order of ids.
func parseInitialCluster(s, token string) ([]Member, error) {
	byName := map[string][]string{}
	for _, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		name, raw, ok := strings.Cut(part, "=")
		if !ok || name == "" || raw == "" {
			return nil, fmt.Errorf("--initial-cluster: %q is not of the form name=url", part)
		}
		u, err := parsePeerURL(raw)
		if err != nil {
			return nil, fmt.Errorf("--initial-cluster: %w", err)
		}
		byName[name] = append(byName[name], u)
	}
	members := make([]Member, 0, len(byName))
	seen := map[string]bool{}
	for name, urls := range byName {
		sort.Strings(urls)
		for _, u := range urls {
			if seen[u] {
				return nil, fmt.Errorf("initial cluster %s has duplicate url", s)
			}
			seen[u] = true
		}
		members = append(members, Member{ID: memberID(urls, token), Name: name, PeerURLs: urls})
	}
	sortMembers(members)
	return members, nil
}

func sortMembers(list []Member) {
	slices.SortFunc(list, func(a, b Member) int {
		switch {
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return 0
	})
}

// parsePeerURL checks one URL by the rules etcd has for all its URLs.
func parsePeerURL(raw string) (string, error) {
	u, err := ParseURL(raw)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// rawWriter is the part of mvcc.WriteTxn that keeps members.
type rawWriter interface {
	SetRaw(b engine.Bucket, key, value []byte)
	DeleteRaw(b engine.Bucket, key []byte)
}

// rawReader is the part of mvcc.Store that remembers them.
type rawReader interface {
	Raw(b engine.Bucket, fn func(key, value []byte) bool)
}

// memberSet is one state of the membership; it never changes once published.
type memberSet struct {
	list    []Member // by id
	removed map[api.MemberID]bool
}

// with is the set after a member was added or changed.
func (s *memberSet) with(row Member) *memberSet {
	next := &memberSet{removed: s.removed, list: []Member{row}}
	for _, o := range s.list {
		if o.ID != row.ID {
			next.list = append(next.list, o)
		}
	}
	sortMembers(next.list)
	return next
}

// without is the set after a member was removed.
func (s *memberSet) without(id api.MemberID) *memberSet {
	next := &memberSet{removed: map[api.MemberID]bool{id: true}}
	for r := range s.removed {
		next.removed[r] = true
	}
	for _, o := range s.list {
		if o.ID != id {
			next.list = append(next.list, o)
		}
	}
	return next
}

func (s *memberSet) find(id api.MemberID) (Member, bool) {
	for _, m := range s.list {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// members is the membership of the cluster. It is replicated state: only the
// apply goroutine changes it, through the write transaction of the entry that
// brings the change, so that every member writes the same rows at the same
// index. Readers take the published set and hold no lock.
type members struct {
	current atomic.Pointer[memberSet]
}

// newMembers starts from the members a cluster was made of; load replaces them
// as soon as the store knows better.
func newMembers(initial []Member) *members {
	m := &members{}
	m.current.Store(&memberSet{list: slices.Clone(initial), removed: map[api.MemberID]bool{}})
	return m
}

// load reads the membership from the store, at start and after a snapshot was
// installed. An empty bucket means that nothing was applied yet: the initial
// members stay.
func (m *members) load(store rawReader) error {
	next := &memberSet{removed: map[api.MemberID]bool{}}
	var bad error
	store.Raw(engine.Members, func(key, value []byte) bool {
		var row Member
		id, err := strconv.ParseUint(string(key), 16, 64)
		if err == nil {
			err = json.Unmarshal(value, &row)
		}
		if err == nil && uint64(row.ID) != id {
			err = fmt.Errorf("row holds member %s", row.ID)
		}
		if err != nil {
			bad = fmt.Errorf("members: row %q: %w", key, err)
			return false
		}
		next.list = append(next.list, row)
		return true
	})
	store.Raw(engine.MembersRemoved, func(key, _ []byte) bool {
		id, err := strconv.ParseUint(string(key), 16, 64)
		if err != nil {
			bad = fmt.Errorf("members: removed row %q: %w", key, err)
			return false
		}
		next.removed[api.MemberID(id)] = true
		return true
	})
	if bad != nil {
		return bad
	}
	if len(next.list) > 0 {
		sortMembers(next.list)
		m.current.Store(next)
	}
	return nil
}

// list returns the members by id. The caller must not change them.
func (m *members) list() []Member { return m.current.Load().list }

// find returns a member.
func (m *members) find(id api.MemberID) (Member, bool) { return m.current.Load().find(id) }

// removed reports whether the id once was a member and is not any more.
func (m *members) removed(id api.MemberID) bool { return m.current.Load().removed[id] }

// set adds a member or replaces what is known of it. Apply goroutine only.
func (m *members) set(w rawWriter, row Member) {
	value, err := json.Marshal(row)
	if err != nil {
		panic(fmt.Sprintf("members: cannot encode %+v: %v", row, err)) // strings and numbers only
	}
	w.SetRaw(engine.Members, []byte(row.ID.String()), value)
	m.current.Store(m.current.Load().with(row))
}

// remove deletes a member for ever. Apply goroutine only.
func (m *members) remove(w rawWriter, id api.MemberID) {
	w.DeleteRaw(engine.Members, []byte(id.String()))
	w.SetRaw(engine.MembersRemoved, []byte(id.String()), []byte("removed"))
	m.current.Store(m.current.Load().without(id))
}

// publication is what a member says about itself at its start: its name, where
// its clients find it, and the mark of its data directory.
type publication struct {
	ID          api.MemberID `json:"id"`
	Name        string       `json:"name"`
	ClientURLs  []string     `json:"clientURLs"`
	Incarnation uint64       `json:"incarnation"`
}

// publish applies a publication. The first data directory that a member has
// shown is its only one. Apply goroutine only.
func (m *members) publish(w rawWriter, p *publication) error {
	row, ok := m.find(p.ID)
	switch {
	case !ok:
		return api.ErrMemberNotFound
	case row.Incarnation != 0 && row.Incarnation != p.Incarnation:
		return fmt.Errorf("%w: member %s", ErrForgotten, p.ID)
	}
	row.Name, row.ClientURLs, row.Incarnation = p.Name, p.ClientURLs, p.Incarnation
	m.set(w, row)
	return nil
}

// published reports whether the cluster already knows all this, so that a
// restart does not propose it again.
func (m *members) published(p *publication) bool {
	row, ok := m.find(p.ID)
	return ok && row.Name == p.Name && row.Incarnation == p.Incarnation && slices.Equal(row.ClientURLs, p.ClientURLs)
}

func urlStrings(urls []url.URL) []string {
	out := make([]string, len(urls))
	for i, u := range urls {
		out[i] = u.String()
	}
	return out
}

// ParseURL reads one listen or advertise URL and refuses what etcd refuses.
func ParseURL(raw string) (url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return url.URL{}, err
	}
	switch u.Scheme {
	case "http", "https":
		if u.Port() == "" {
			return url.URL{}, fmt.Errorf(`URL address does not have the form "host:port": %s`, raw)
		}
	case "unix", "unixs":
		if socketPath(*u) == "" {
			return url.URL{}, errors.New("a unix URL needs a path: " + raw)
		}
		return *u, nil
	default:
		return url.URL{}, fmt.Errorf("URL scheme must be http, https, unix, or unixs: %s", raw)
	}
	if u.Path != "" {
		return url.URL{}, fmt.Errorf("URL must not contain a path: %s", raw)
	}
	return *u, nil
}

// ParseURLs reads a comma-separated list, sorted and without repetition.
func ParseURLs(list string) ([]url.URL, error) {
	seen := map[string]url.URL{}
	for _, raw := range strings.Split(list, ",") {
		if strings.TrimSpace(raw) == "" {
			continue
		}
		u, err := ParseURL(raw)
		if err != nil {
			return nil, err
		}
		seen[u.String()] = u
	}
	keys := make([]string, 0, len(seen))
	for k := range seen {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	urls := make([]url.URL, len(keys))
	for i, k := range keys {
		urls[i] = seen[k]
	}
	return urls, nil
}
