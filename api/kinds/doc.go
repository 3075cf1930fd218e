// Package kinds knows the built-in kinds of Kubernetes: how they are laid out
// in protobuf, under which key a kube-apiserver stores them, and which columns
// kubectl prints. It links none of Kubernetes' code; a table that is generated
// from it (`make kinds`) is all it has, and all of it is data.
//
// # What a kube-apiserver stores
//
// The value of a key is one object, in one of three forms. Decode reads the
// first two:
//
//	{…                   JSON: custom resources, their definitions, API services
//	k8s\x00…             an envelope (runtime.Unknown) around protobuf: all else
//	k8s:enc:PROVIDER:…   encrypted; EncryptedError names the provider
//
// The envelope has 1: TypeMeta{1: apiVersion, 2: kind}, 2: the bytes of the
// object, 3: content encoding, 4: content type. Request bodies of the media type
// application/vnd.kubernetes.protobuf have the same form. The object's
// resourceVersion is not in its bytes: it is the revision of the key.
//
// # What decoding promises
//
// The result equals what Kubernetes' own types give when they are read from
// protobuf and written as JSON, including what they write for fields that are
// absent, but without the defaults that an API server fills in when it reads.
// A field that the table does not have is reported in Object.Unknown, with its
// bytes. Depth and the number of values are bounded (limits.go), so what it costs
// to decode a value is too.
//
// # Reading the source
//
// table.go (messages and fields), wire.go (protobuf), decode.go (objects),
// scalar.go (types with a JSON of their own), resource.go (names and keys),
// view.go and columns.go (what kubectl prints; the cells are in columns_*.go).
package kinds
