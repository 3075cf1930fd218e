package object

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// Find returns the raw value at a path of names in an encoded object, without
// decoding what it passes; nil when there is none or the bytes are not JSON.
func Find(b []byte, path ...string) []byte {
	for _, name := range path {
		var found []byte
		Members(b, func(n []byte, at, end int) bool {
			if nameIs(n, name) {
				found = b[at:end]
				return false
			}
			return true
		})
		if found == nil {
			return nil
		}
		b = found
	}
	return b
}

// FindString is Find for a string; empty when there is none.
func FindString(b []byte, path ...string) string {
	s, err := text(Find(b, path...))
	if err != nil {
		return ""
	}
	return s
}

// text is the string that raw encodes; empty for null and for nothing.
func text(raw []byte) (s string, err error) {
	if len(raw) >= 2 && raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : len(raw)-1]), nil
	}
	if len(raw) == 0 {
		return "", nil
	}
	err = json.Unmarshal(raw, &s)
	return s, err
}

// Members calls fn for each member of the encoded object b: its name as it is
// written, without quotes, and where its value begins and ends. fn ends the walk
// by returning false. It returns false when b is not an object.
func Members(b []byte, fn func(name []byte, at, end int) bool) bool {
	i := space(b, 0)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return true
	}
	for {
		end := skip(b, i)
		if end < 0 || b[i] != '"' {
			return false
		}
		name := b[i+1 : end-1]
		i = space(b, end)
		if i >= len(b) || b[i] != ':' {
			return false
		}
		at := space(b, i+1)
		if end = skip(b, at); end < 0 {
			return false
		}
		if !fn(name, at, end) {
			return true
		}
		i = space(b, end)
		if i >= len(b) {
			return false
		}
		if b[i] == '}' {
			return true
		}
		if b[i] != ',' {
			return false
		}
		i = space(b, i+1)
	}
}

// TypeEnd returns where an encoded object goes on after its apiVersion and kind, if
// it begins with them, without white space; else 0. It does not look further: lists
// ask it of each object.
func TypeEnd(b []byte) (end int) {
	if len(b) == 0 || b[0] != '{' {
		return 0
	}
	i := 1
	for range 2 {
		colon := skip(b, i)
		if colon < 0 || colon >= len(b) || b[i] != '"' || b[colon] != ':' {
			return 0
		}
		if name := b[i+1 : colon-1]; !nameIs(name, "apiVersion") && !nameIs(name, "kind") {
			return 0
		}
		comma := skip(b, colon+1)
		if comma < 0 || comma >= len(b) || b[comma] != ',' {
			return 0
		}
		i = comma + 1
	}
	if i < len(b) && b[i] == '"' {
		return i
	}
	return 0
}

func nameIs(written []byte, name string) bool {
	if bytes.IndexByte(written, '\\') < 0 {
		return string(written) == name
	}
	s, err := unescaped(written)
	return err == nil && s == name
}

// unescaped is a name of a member as it is meant.
func unescaped(written []byte) (string, error) {
	if bytes.IndexByte(written, '\\') < 0 {
		return string(written), nil
	}
	return text(append(append([]byte{'"'}, written...), '"'))
}

// space returns the index of the first byte from i on that is no white space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skip returns the index after the value that begins at i; -1 when it does not
// end. Brackets are counted, not matched by kind: what is not JSON was refused
// when it was written, and here only must not be run over.
func skip(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch c := b[i]; c {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth <= 0 {
				if depth < 0 {
					return -1
				}
				return i + 1
			}
		case ',', ':', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return -1
			}
		default:
			if depth == 0 {
				return skipLiteral(b, i)
			}
		}
		i++
	}
	return -1
}

func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

func skipLiteral(b []byte, i int) int {
	for ; i < len(b); i++ {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return i
		}
	}
	return i
}
