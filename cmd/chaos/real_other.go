//go:build !linux

package main

import "errors"

func realProcesses([]string) error {
	return errors.New("chaos real needs Linux: network namespaces, loop devices, cgroups")
}
