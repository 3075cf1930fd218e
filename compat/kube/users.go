package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// users are who may ask, with their groups.
var users = map[string]string{
	"admin": "system:masters",
	"alice": "developers",
	"bob":   "",
}

// TokenOf is the bearer token of a user.
func TokenOf(user string) string { return "compat-" + user }

// WriteTokens writes the file of all users' tokens, in the form that both
// kube-apiserver and kvd read.
func WriteTokens(dir string) (string, error) {
	var b strings.Builder
	for name, groups := range users {
		fmt.Fprintf(&b, "%s,%s,%s,%q\n", TokenOf(name), name, name, groups)
	}
	path := filepath.Join(dir, "tokens.csv")
	return path, os.WriteFile(path, []byte(b.String()), 0o600)
}
