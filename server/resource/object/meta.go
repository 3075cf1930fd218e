package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Meta is what lists, watches and controllers need of an object's metadata. Each
// object that is cached has one: it takes few pieces of memory.
type Meta struct {
	Name              string
	Namespace         string
	UID               string
	Labels            Labels
	Owners            []Owner
	Finalizers        []string
	DeletionTimestamp string
}

// Owner is one of metadata.ownerReferences.
type Owner struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
	Controller bool   `json:"controller"`
	Blocks     bool   `json:"blockOwnerDeletion"`
}

// ParseMeta reads the metadata of an encoded object.
func ParseMeta(b []byte) (Meta, error) {
	var m Meta
	var failed error
	metadata := Find(b, "metadata")
	ok := Members(metadata, func(name []byte, at, end int) bool {
		failed = m.take(name, metadata[at:end])
		return failed == nil
	})
	if !ok && failed == nil {
		failed = errors.New("an object without metadata")
	}
	return m, failed
}

// take reads one member of the metadata, if it is one that matters.
func (m *Meta) take(name, raw []byte) (err error) {
	switch string(name) {
	case "name":
		m.Name, err = text(raw)
	case "namespace":
		m.Namespace, err = text(raw)
	case "uid":
		m.UID, err = text(raw)
	case "deletionTimestamp":
		m.DeletionTimestamp, err = text(raw)
	case "labels":
		m.Labels, err = parseLabels(raw)
	case "ownerReferences":
		err = json.Unmarshal(raw, &m.Owners)
	case "finalizers":
		err = json.Unmarshal(raw, &m.Finalizers)
	}
	if err != nil {
		return fmt.Errorf("metadata.%s: %w", name, err)
	}
	return nil
}

var (
	metadataOpen = []byte(`"metadata":{`)
	versionField = []byte(`"resourceVersion":"`)
)

// StampBytes is by how much AppendStamped makes an object longer: a cache of many
// objects wants none of them in a larger piece of memory than it needs.
func StampBytes(rev int64) int {
	var digits [20]byte
	return len(versionField) + len(strconv.AppendInt(digits[:0], rev, 10)) + len(`",`)
}

// AppendStamped appends the encoded object b with its resource version, which
// stored bytes lack. Bytes in the form that Encode writes are copied with the version
// spliced in; others (another writer's) are encoded anew.
func AppendStamped(dst, b []byte, rev int64) []byte {
	at := -1
	Members(b, func(name []byte, from, end int) bool {
		if string(name) != "metadata" || b[from] != '{' {
			return true
		}
		if open := from + 1 - len(metadataOpen); open >= 0 && bytes.HasPrefix(b[open:], metadataOpen) &&
			b[from+1] == '"' && !bytes.Contains(b[from:end], versionField) {
			at = from + 1
		}
		return false
	})
	if at < 0 {
		return appendReencoded(dst, b, rev)
	}
	dst = append(append(dst, b[:at]...), versionField...)
	dst = append(strconv.AppendInt(dst, rev, 10), '"', ',')
	return append(dst, b[at:]...)
}

func appendReencoded(dst, b []byte, rev int64) []byte {
	o, _, err := Decode(b)
	if err != nil {
		return append(dst, b...)
	}
	Stamp(o, rev)
	return append(dst, Encode(o)...)
}

// Stamp changes o: it has this resource version.
func Stamp(o Object, rev int64) {
	Set(o, strconv.FormatInt(rev, 10), "metadata", "resourceVersion")
}

// Restamped returns the stamped bytes b with another resource version: the
// object as it was, at the revision of its deletion.
func Restamped(b []byte, rev int64) []byte {
	at := bytes.Index(b, metadataOpen)
	if at >= 0 && bytes.HasPrefix(b[at+len(metadataOpen):], versionField) {
		at += len(metadataOpen) + len(versionField)
		if n := bytes.IndexByte(b[at:], '"'); n >= 0 {
			out := append(make([]byte, 0, len(b)+8), b[:at]...)
			return append(strconv.AppendInt(out, rev, 10), b[at+n:]...)
		}
	}
	return appendReencoded(nil, b, rev)
}

// WithAPIVersion returns the encoded object b as one of another version; nothing
// else changes.
func WithAPIVersion(b []byte, version string) []byte {
	out := b
	Members(b, func(name []byte, from, end int) bool {
		if string(name) != "apiVersion" {
			return true
		}
		out = append(make([]byte, 0, len(b)+len(version)), b[:from]...)
		out = append(AppendString(out, version), b[end:]...)
		return false
	})
	return out
}
