//go:build !chaos

package main

import "github.com/keelson-io/keelson/server"

// tune changes nothing: only the build for chaos tests can be tuned.
func tune(*server.Config) error { return nil }
