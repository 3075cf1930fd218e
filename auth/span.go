package auth

import (
	"bytes"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
)

// span is a range of keys [from, to); a nil to has no upper bound.
type span struct{ from, to []byte }

// spanOf is the range that key and end name in requests and permissions: no end
// is the one key, the end "\x00" is all keys from key on. Permissions are given
// and checked in this one form, which is also how ranges are executed.
func spanOf(key, end []byte) span {
	switch {
	case len(end) == 0:
		return span{key, append(bytes.Clone(key), 0)}
	case len(end) == 1 && end[0] == 0:
		return span{key, nil}
	}
	return span{key, end}
}

// endsBefore reports whether the end to lies before the key or end other.
func endsBefore(to, other []byte) bool {
	return to != nil && (other == nil || bytes.Compare(to, other) < 0)
}

// spans are disjoint, in order, and do not touch.
type spans []span

// merged joins spans that overlap or touch: rights to [a,b) and to [b,c) are
// rights to [a,c).
func merged(list spans) spans {
	list = slices.DeleteFunc(list, func(s span) bool { return s.to != nil && bytes.Compare(s.from, s.to) >= 0 })
	slices.SortFunc(list, func(a, b span) int { return bytes.Compare(a.from, b.from) })
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && !endsBefore(out[n-1].to, s.from) {
			if endsBefore(out[n-1].to, s.to) {
				out[n-1].to = s.to
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// cover reports whether one span holds all of want. A want that holds no key,
// because its end is not behind its beginning, is asked about as its first key.
// etcd does the same for a user with one permission; with several it depends on
// the shape of its interval tree whether a range that ends before it begins is
// found.
func (l spans) cover(want span) bool {
	if want.to != nil && bytes.Compare(want.from, want.to) >= 0 {
		want = spanOf(want.from, nil)
	}
	i, found := slices.BinarySearchFunc(l, want.from, func(s span, from []byte) int { return bytes.Compare(s.from, from) })
	if !found {
		i-- // the last span that begins before want
	}
	if i < 0 {
		return false
	}
	to := l[i].to
	return (to == nil || bytes.Compare(want.from, to) < 0) && !endsBefore(to, want.to)
}

// permitted merges what roles permit.
func permitted(roles []*authpb.Role) (read, write spans) {
	for _, r := range roles {
		for _, p := range r.KeyPermission {
			s := spanOf(p.Key, p.RangeEnd)
			if p.PermType == authpb.Permission_READ || p.PermType == authpb.Permission_READWRITE {
				read = append(read, s)
			}
			if p.PermType == authpb.Permission_WRITE || p.PermType == authpb.Permission_READWRITE {
				write = append(write, s)
			}
		}
	}
	return merged(read), merged(write)
}

// validRange is etcd's rule for the range of a permission.
func validRange(key, end []byte) bool {
	if len(key) == 0 {
		return false
	}
	return len(end) == 0 || bytes.Compare(key, end) < 0 || len(end) == 1 && end[0] == 0
}
