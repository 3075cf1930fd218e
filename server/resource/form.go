package resource

import (
	"mime"
	"net/http"
	"slices"
	"strings"
	"unique"

	"github.com/keelson-io/keelson/server/resource/object"
)

// form is how an answer's objects look: as they are, as rows of a table, or
// their metadata alone.
type form struct {
	id   string // distinguishes encoded frames
	as   string // "", Table, PartialObjectMetadata
	list bool   // metadata of a list, not of one object, was asked for
	// typeless: items of a list of metadata do not say what they are, as in protobuf, which
	// the client would rather have; clients compare them with what watches bring.
	typeless bool
	version  string // of meta.k8s.io
	include  string // of a table's rows: Metadata, Object or None
	yaml     bool   // the answer is YAML
	kind     *Kind  // the version that is served
	now      int64  // seconds; a table tells ages
}

const metaGroup = "meta.k8s.io"

// mediaTypes are those that answers come in.
const mediaTypes = jsonType + ", " + yamlType

// formOf chooses the form that a client's Accept header prefers. Protobuf is
// never sent: every client that asks for it takes JSON, too.
func formOf(k *Kind, r *http.Request, now int64) (*form, error) {
	f := &form{kind: k, now: now, include: r.URL.Query().Get("includeObject")}
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if accept == "" {
		return f.named(), nil
	}
	json := false
	for _, part := range strings.Split(accept, ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		switch {
		case err != nil:
			continue
		case media == protobufType:
			f.typeless = true
			continue
		case media != jsonType && media != yamlType && media != "application/*" && media != "*/*":
			continue
		}
		json, f.yaml = true, media == yamlType
		switch as := params["as"]; {
		case as == "":
			return f.named(), nil
		case params["g"] != metaGroup || params["v"] != "v1" && params["v"] != "v1beta1":
			continue
		case as == "Table":
			if !slices.Contains([]string{"", "Metadata", "Object", "None"}, f.include) {
				return nil, badRequest("Unable to convert to Table as requested: includeObject: Invalid value: %q: must be 'Metadata', 'Object', 'None', or empty", f.include)
			}
			f.as, f.version = as, params["v"]
			return f.named(), nil
		case as == "PartialObjectMetadata" || as == "PartialObjectMetadataList":
			f.as, f.version, f.list = "PartialObjectMetadata", params["v"], as != "PartialObjectMetadata"
			return f.named(), nil
		}
	}
	if json {
		return nil, notAcceptable("only the following media types are accepted: " + mediaTypes)
	}
	f0 := notAcceptable("406: Not Acceptable\n\nAvailable representations: " + mediaTypes)
	f0.Generic = true
	return nil, f0
}

// fits refuses metadata of a list that is asked of one object, and the other way round.
func (f *form) fits(list bool) error {
	switch goType := f.kind.goType(); {
	case f.as != "PartialObjectMetadata" || f.list == list:
		return nil
	case list:
		return notAcceptable("you requested PartialObjectMetadata, but the requested object is a list (*%sList)", goType)
	default:
		return notAcceptable("you requested PartialObjectMetadataList, but the requested object is not a list (*%s)", goType)
	}
}

// goType is the kind's name in a kube-apiserver's source, which its messages have.
func (k *Kind) goType() string {
	group, _, _ := strings.Cut(k.Group, ".")
	switch {
	case k.Custom:
		return "unstructured.Unstructured"
	case group == "", group == "events":
		group = "core"
	}
	return group + "." + k.Name
}

// named fills in the id.
func (f *form) named() *form {
	f.id = f.kind.APIVersion() + "/" + f.as
	if f.as != "" {
		f.id += "/" + f.version + "/" + f.include
	}
	f.id = unique.Make(f.id).Value() // equal ones are the same: a thousand watches compare theirs for an event
	return f
}

// one makes the answer for one object of its stamped bytes.
func (f *form) one(b []byte) []byte {
	switch f.as {
	case "Table":
		return f.table("", [][]byte{b})
	case "PartialObjectMetadata":
		return appendPartial(nil, b, f.version)
	}
	return f.versioned(b)
}

// versioned makes the served version of stored bytes.
func (f *form) versioned(b []byte) []byte { return f.kind.versioned(b) }

func (k *Kind) versioned(b []byte) []byte {
	if k.From != nil {
		o, _, err := object.Decode(b)
		if err != nil {
			return b
		}
		return object.Encode(k.From(o))
	}
	if k.names(b) {
		return b
	}
	return object.WithAPIVersion(b, k.APIVersion())
}

// names reports whether an encoded object says that it is of this version. One that
// a kube-apiserver stored, or that lies here since before its kind's versions changed, may
// be of another.
func (k *Kind) names(b []byte) bool {
	const head = `{"apiVersion":"`
	for i, part := range [...]string{head, k.Group, "/", k.Version, `"`} {
		if k.Group == "" && i == 2 {
			continue
		}
		if len(b) < len(part) || string(b[:len(part)]) != part {
			return false
		}
		b = b[len(part):]
	}
	return true
}

// appendPartial appends the metadata of an encoded object.
func appendPartial(dst, b []byte, version string) []byte {
	dst = append(dst, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/`...)
	dst = append(append(dst, version...), `","metadata":`...)
	return append(append(dst, object.Find(b, "metadata")...), '}')
}
