package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// System is a store under test.
type System struct {
	Name   string // "etcd" or "kvd"
	Binary string
}

// Lookup finds a system by name, or by the path of its binary. The binaries
// come from `make bin`; ETCD_BINARY and KVD_BINARY replace them.
func Lookup(name string) (System, error) {
	var env string
	switch name {
	case "etcd":
		env = "ETCD_BINARY"
	case "kvd":
		env = "KVD_BINARY"
	default:
		if _, err := os.Stat(name); err != nil {
			return System{}, fmt.Errorf("%q is neither etcd, kvd nor a binary: %w", name, err)
		}
		return System{Name: filepath.Base(name), Binary: name}, nil
	}
	if path := os.Getenv(env); path != "" {
		return System{Name: name, Binary: path}, nil
	}
	path, err := BinaryPath(name)
	return System{Name: name, Binary: path}, err
}

// UnderTest is the store that tests are about: STORE names it, kvd by default.
func UnderTest() (System, error) {
	if name := os.Getenv("STORE"); name != "" {
		return Lookup(name)
	}
	return Lookup("kvd")
}

// Pair is etcd, which is right, and the store that is compared with it.
func Pair() (pair [2]System, err error) {
	if pair[0], err = Lookup("etcd"); err == nil {
		pair[1], err = UnderTest()
	}
	return pair, err
}

// BinaryPath is where `make bin` leaves a binary.
func BinaryPath(name string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w; build it with `make -C compat bin`", err)
	}
	return path, nil
}

// moduleRoot is the nearest directory above the working directory that holds a
// go.mod beside a cluster package: tests run in their package's directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "cluster", "system.go")); err == nil {
			return dir, nil
		}
		if _, err := os.Stat(filepath.Join(dir, "compat", "go.mod")); err == nil {
			return filepath.Join(dir, "compat"), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside the compat module")
		}
		dir = parent
	}
}
