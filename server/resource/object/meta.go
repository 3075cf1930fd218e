package object

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Meta is what lists, watches and controllers need of an object's metadata.
type Meta struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	UID               string            `json:"uid"`
	Labels            map[string]string `json:"labels"`
	Owners            []Owner           `json:"ownerReferences"`
	Finalizers        []string          `json:"finalizers"`
	DeletionTimestamp string            `json:"deletionTimestamp"`
	ResourceVersion   string            `json:"resourceVersion"`
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
	err := json.Unmarshal(Find(b, "metadata"), &m)
	return m, err
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
