package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"go.etcd.io/etcd/api/v3/version"
)

const usage = `Usage:

  kvd [flags]
    Start a member. Without flags: a durable cluster of one, clients on
    localhost:2379, data in default.kvd.

  kvd --config-file <file>
    Take all settings from a YAML or JSON file instead.

  kvd --version
  kvd --help

Flags may have one dash or two. Every flag is also an environment variable
(--data-dir is ETCD_DATA_DIR) and a key of the configuration file (data-dir).
`

// printHelp prints the table of options as etcd prints its flags.
func printHelp(w io.Writer) {
	fmt.Fprint(w, usage)
	for _, group := range groups {
		fmt.Fprintf(w, "\n%s:\n", group)
		for _, o := range options {
			if o.group == group {
				fmt.Fprintf(w, "  --%s '%s'\n    %s\n", o.name, o.def, o.help)
			}
		}
	}
	fmt.Fprint(w, "\nAccepted without effect:\n")
	for _, o := range options {
		if o.effect == ignored {
			fmt.Fprintf(w, "  --%s '%s'\n    %s\n", o.name, o.def, o.note)
		}
	}
	fmt.Fprint(w, "\nFlags of etcd that are not served yet (a start with one of them fails):\n")
	var names []string
	for _, o := range options {
		if o.effect == notYet {
			names = append(names, "--"+o.name)
		}
	}
	fmt.Fprint(w, wrap(names, 76))
}

func wrap(words []string, width int) string {
	var b strings.Builder
	line := " "
	for _, word := range words {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
	return b.String()
}

// release is this project's own version; what clients see is the level of
// etcd's API.
const release = "0.1.0"

func printVersion(w io.Writer) {
	revision := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	fmt.Fprintf(w, "kvd Version: %s\n", release)
	fmt.Fprintf(w, "etcd API Version: %s\n", version.Version)
	fmt.Fprintf(w, "Git SHA: %s\n", revision)
	fmt.Fprintf(w, "Go Version: %s\n", runtime.Version())
	fmt.Fprintf(w, "Go OS/Arch: %s/%s\n", runtime.GOOS, runtime.GOARCH)
}

// printDocs prints the reference page of the options, docs/operators/kvd.md.
func printDocs(w io.Writer) {
	fmt.Fprint(w, docsHead)
	for _, group := range groups {
		fmt.Fprintf(w, "\n### %s\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n", group)
		for _, o := range options {
			if o.group == group {
				fmt.Fprintf(w, "| `--%s` | `%s` | %s | %s |\n", o.name, o.env(), code(o.def), strings.ReplaceAll(o.help, "|", "\\|"))
			}
		}
	}
	fmt.Fprint(w, "\n### Accepted without effect\n\nThey ask for what kvd does in another way; each one that is set is noted in the log.\n\n| flag | why |\n|---|---|\n")
	for _, o := range options {
		if o.effect == ignored {
			fmt.Fprintf(w, "| `--%s` | %s |\n", o.name, o.note)
		}
	}
	fmt.Fprint(w, "\n### Not served yet\n\nA value that asks for nothing (empty, `0`, `false`, `*`) is accepted; any other stops the start.\n\n")
	var names []string
	for _, o := range options {
		if o.effect == notYet {
			names = append(names, "`--"+o.name+"`")
		}
	}
	fmt.Fprintf(w, "%s.\n", strings.Join(names, ", "))
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

const docsHead = `# Running kvd

This page is printed from the table in cmd/kvd/options.go; a test holds them equal (go test ./cmd/kvd -run Docs -rewrite).

kvd takes etcd's flags, with one dash or two. What the command line does not set is taken from the environment, then from the
default. With ` + "`--config-file`" + ` the file alone counts: YAML or JSON, its keys are the flags' names; durations may be written as
` + "`5s`" + ` or, as in etcd, as a number of nanoseconds. An unknown flag or key is an error that names the nearest one.

## The data directory

| path | holds |
|---|---|
| LOCK | held while the member runs |
| member/identity | whose directory this is: cluster, member, name; readable text with a checksum |
| member/wal/ | the log, or in the directory of ` + "`--wal-dir`" + ` |
| member/snap/db | the store, in etcd's format |

All of it is readable by its owner only. Never copy a directory to start a second member from it: two members with one identity can
lose acknowledged writes.

## Exit codes

| code | reason |
|---|---|
| 0 | stopped when asked to |
| 1 | the command line, environment or configuration file is wrong |
| 2 | another process has the data directory (also what a Go panic gives) |
| 3 | the data directory is not this member's: another cluster's, another member's, or not kvd's at all |
| 4 | no space left on the device |
| 5 | a write or sync of the storage failed |
| 6 | stored data is damaged, and no other member can repair it |
| 7 | an address cannot be listened on |
| 8 | any other failure |

One line on standard error says why. The first SIGTERM or SIGINT hands leadership over and stops; a second one quits at once, with
128 + its number. A systemd unit of Type=notify is told when clients are served.

## Flags
`
