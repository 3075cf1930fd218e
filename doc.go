// Package keelson is the root of the Keelson store: nothing but tidy_test.go,
// which keeps the module's rules true. Start with README.md; ARCHITECTURE.md
// has the layers and the life of a request.
package keelson
