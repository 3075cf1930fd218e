package client

import "strings"

// Range says which keys a call is about. Key, Prefix, Span, From and All make
// one; the zero Range has no keys and is refused.
type Range struct{ from, to string }

// onward, as the end of a range, stands for "to the last key": the wire's way to
// say it.
const onward = "\x00"

// Key is one key.
func Key(key string) Range { return Range{from: key} }

// Prefix is every key that begins with prefix; all keys if it is empty.
func Prefix(prefix string) Range {
	if prefix == "" {
		return All()
	}
	return Range{prefix, prefixEnd(prefix)}
}

// Span is every key in [from, to).
func Span(from, to string) Range {
	if to == "" {
		return From(from)
	}
	return Range{from, to}
}

// From is every key from this one on.
func From(key string) Range {
	if key == "" {
		return All()
	}
	return Range{key, onward}
}

// All is every key.
func All() Range { return Range{onward, onward} }

// After is the part of the range behind key: where the page that ended with key
// goes on.
func (r Range) After(key string) Range {
	if r.to == "" {
		return Range{}
	}
	return Range{key + onward, r.to}
}

// Contains reports whether key is in the range.
func (r Range) Contains(key string) bool {
	switch r.to {
	case "":
		return key == r.from
	case onward:
		return key >= r.from
	}
	return key >= r.from && key < r.to
}

// prefixEnd is the first key behind all that begin with prefix.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return onward
}

// wire returns the range as requests have it, below the client's prefix.
func (c *Client) wire(r Range) (key, end []byte) {
	if r.from == "" {
		return nil, nil // refused by every member
	}
	key = []byte(c.prefix + r.from)
	switch {
	case r.to == "":
	case r.to == onward && c.prefix != "":
		end = []byte(prefixEnd(c.prefix))
	case r.to == onward:
		end = []byte(onward)
	default:
		end = []byte(c.prefix + r.to)
	}
	return key, end
}

// local is the key that a caller of this view knows.
func (c *Client) local(key []byte) string { return strings.TrimPrefix(string(key), c.prefix) }
