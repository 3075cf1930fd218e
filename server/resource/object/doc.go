// Package object is what the resource layer does with one object, without
// knowing any kind, store or request: reading and writing its JSON, finding
// fields in stored bytes without decoding them, and patching.
//
// An object is a map[string]any as encoding/json makes it, with numbers as
// json.Number: what a client wrote as 1.0 stays 1.0. Stored bytes are compact
// JSON with apiVersion and kind first and metadata third (json.go); scan.go
// finds fields in such bytes, meta.go reads the metadata of bytes that are only
// listed and watched. patch_merge.go and patch_strategic.go are pure functions from
// an object and a patch to an object.
//
// Nothing here starts goroutines, reads clocks or keeps state. Functions that
// change an object say so; all others leave their arguments alone.
package object
