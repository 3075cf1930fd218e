package ctl

import "strings"

// step is one run of etcdctl, or of etcdutl.
type step struct {
	tool  string // etcdctl if empty
	args  string // split at spaces; {name} is filled in by the shell; '·' stands for a space inside an argument
	stdin string
	// until ends a step that runs on: it has printed this, and the line's end.
	until string
	// polled ends a step that prints nothing: this command, run beside it, prints until.
	polled string
	// user sends it, "name:password"; empty: whoever the mode says.
	user string
}

func run(args string) step         { return step{args: args} }
func with(args, stdin string) step { return step{args: args, stdin: stdin} }
func offline(args string) step     { return step{tool: "etcdutl", args: args} }
func as(user, args string) step    { return step{args: args, user: user} }
func until(text, args string) step { return step{args: args, until: text} }
func (s step) words() (out []string) {
	for _, w := range strings.Fields(s.args) {
		out = append(out, strings.ReplaceAll(w, "·", " "))
	}
	return out
}

// watching steps run until they have printed the value that is put last of all,
// so they see everything from the revision they ask for.
func watching(args string) step {
	if strings.Contains(args, "-w json") {
		return until("dGhhdC13YXMtYWxs", "watch "+args) // base64 of lastValue
	}
	return until(lastValue, "watch "+args)
}

// lastValue ends the watches.
const lastValue = "that-was-all"

// elsewhere says of each command that no step runs why not.
var elsewhere = map[string]string{
	"etcdctl member add":      "package membership",
	"etcdctl member promote":  "package membership",
	"etcdctl member remove":   "package membership",
	"etcdctl member update":   "package membership",
	"etcdctl check datascale": "puts and reads for a minute and prints rates and sizes: bench measures them",
	"etcdctl check perf":      "puts for a minute and prints rates: bench measures them",
	"etcdutl defrag":          "works on etcd's data directory, which kvd's is not",
	"etcdutl migrate":         "works on etcd's data directory, which kvd's is not",
}
