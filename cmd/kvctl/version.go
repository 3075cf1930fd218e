package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/version"
)

// release is this project's own version, as kvd prints it.
const release = "0.1.0"

func (a *app) versionCommand() *cobra.Command {
	return verb("version", "Show the version of kvctl and of the API it speaks", "  kvctl version", cobra.NoArgs,
		func(context.Context, []string) error {
			commit := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						commit = s.Value
					}
				}
			}
			v := map[string]string{"kvctl": release, "api": version.APIVersion, "commit": commit, "go": runtime.Version()}
			return a.show(result{value: v, simple: func(w io.Writer) {
				fmt.Fprintf(w, "kvctl version: %s\nAPI version: %s\nCommit: %s\nGo: %s\n", v["kvctl"], v["api"], v["commit"], v["go"])
			}})
		})
}
