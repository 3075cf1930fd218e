//go:build !linux

package engine

const mapAtOnce = 0 // there is no such flag
