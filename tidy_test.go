package keelson

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// This file keeps the rules of ARCHITECTURE.md true: who may import whom, how
// large a file and a function may grow, where goroutines start, and which calls
// stay behind an interface so that a simulation owns them.

const module = "github.com/keelson-io/keelson/"

// arrows names, for each of our packages, the packages of ours that it may
// import. A package that is not listed may not exist.
var arrows = map[string][]string{
	"api":              {},
	"api/jsonpath":     {},
	"api/kinds":        {"api/jsonpath"},
	"api/keelsonpb":    {},
	"client":           {"api", "api/keelsonpb", "planted"}, // its tests run members of package server
	"clock":            {},
	"planted":          {},
	"topk":             {},
	"tracing":          {},
	"auth":             {"api", "clock", "mvcc/engine"},
	"raft/vfs":         {},
	"raft/wal":         {"api", "planted", "raft/vfs"},
	"raft/transport":   {"api", "clock", "raft/vfs"},
	"raft":             {"api", "planted", "clock", "raft/vfs", "raft/wal", "raft/transport"},
	"mvcc/engine":      {"planted"},
	"mvcc":             {"api", "planted", "clock", "mvcc/engine"},
	"mvcc/watchcheck":  {"api", "mvcc"},
	"server":           {"api", "api/keelsonpb", "planted", "clock", "server/admission", "raft", "raft/transport", "raft/vfs", "mvcc", "mvcc/engine", "auth", "topk", "server/resource", "server/lane", "server/direct"},
	"server/admission": {"api", "clock"},
	"server/certtest":  {},
	"server/lane":      {},
	"server/direct":    {},
	"server/h2test":    {},
	"server/porttest":  {},
	"cmd/kvd":          {"api", "clock", "server", "raft", "raft/wal", "raft/vfs", "mvcc", "mvcc/engine", "tracing"},
	"cmd/kvctl":        {"api", "api/jsonpath", "api/kinds", "clock", "client", "server", "raft/vfs", "raft/wal", "mvcc", "mvcc/engine"},
	"cmd/waldump":      {"api", "raft/wal", "raft/vfs"},
	"cmd/kvcheck":      {"api", "clock", "mvcc", "mvcc/engine"},
	"scripts":          {},
	// The resource layer and what it knows of single objects.
	"server/resource":        {"api", "api/jsonpath", "api/kinds", "clock", "mvcc", "server/lane", "server/resource/object"},
	"server/resource/object": {},
	// Chaos may import all of the above; nobody but cmd/chaos imports it.
	"chaos/history":  {"mvcc/watchcheck"},
	"chaos/oracle":   {"api", "mvcc/watchcheck", "chaos/history"},
	"chaos/workload": {"chaos/history", "chaos/oracle", "mvcc/watchcheck"},
	"chaos/load":     {"client", "chaos/history", "chaos/oracle", "chaos/workload"},
	"chaos/page":     {"chaos/history", "chaos/oracle"},
	"chaos/fault":    {},
	"chaos/sim":      {"api", "clock", "raft", "raft/transport", "raft/vfs", "mvcc", "mvcc/engine", "mvcc/watchcheck", "server", "chaos/history", "chaos/oracle", "chaos/workload", "chaos/fault"},
	"chaos/real":     {"api", "client", "clock", "raft", "raft/vfs", "raft/wal", "mvcc", "mvcc/engine", "mvcc/watchcheck", "server", "chaos/history", "chaos/oracle", "chaos/workload", "chaos/load", "chaos/fault"},
	// Ring B is a nested module, but keeps this house's rules.
	"chaos/wasm":         {"raft/vfs", "chaos/fault", "chaos/history", "chaos/load", "chaos/oracle", "chaos/sim", "chaos/wasm/wire"},
	"chaos/wasm/wire":    {"chaos/history", "chaos/load"},
	"chaos/wasm/journal": {"mvcc/engine", "raft/vfs"},
	"chaos/wasm/guest":   {"client", "clock", "mvcc/engine", "raft/vfs", "server", "chaos/history", "chaos/load", "chaos/wasm/wire", "chaos/wasm/journal"},
	"cmd/chaos":          {"planted", "chaos/sim", "chaos/real", "chaos/fault", "chaos/history", "chaos/page", "chaos/oracle", "chaos/workload"},
}

// Sizes, as the anchors of the style have them.
const (
	maxFileLines = 600
	maxFuncLines = 70
)

// longFuncs lists the functions that may be longer, each with its reason.
var longFuncs = map[string]string{}

// spawners lists the files that may contain a go statement, each with what it
// starts. ARCHITECTURE.md has the table of goroutines.
var spawners = map[string]string{
	"cmd/chaos/clients.go":         "the readers of watches; joined when the crowd leaves",
	"chaos/load/probe.go":          "one probe, which ends within its timeout; joined by Stop",
	"chaos/load/load.go":           "a goroutine for each client, watcher, collector, prober, and the compactor; joined by Stop and Finish",
	"chaos/real/audit.go":          "one probe; joined when probing ends",
	"chaos/real/cluster.go":        "one question to each member; joined at once",
	"chaos/real/load.go":           "the clients of a run; joined when its load ends",
	"chaos/real/hold.go":           "the writers, the compactor, and a watch on each member; joined at the end",
	"chaos/real/member.go":         "the reader of a member's log, which ends with the process",
	"chaos/real/netns.go":          "the thread in a network namespace; it ends with the world",
	"chaos/real/faults_disk.go":    "one power cut for each member; joined",
	"chaos/real/strace.go":         "the waiter for a strace",
	"chaos/real/run.go":            "the watchers and the prober of a run; one power cut for each member; joined",
	"chaos/real/sandbox.go":        "the waiter for the process in the sandbox",
	"chaos/real/switch.go":         "one pump for each port; joined when the world is closed",
	"chaos/wasm/guest/network.go":  "the reader of what the host tells; it lives as long as the guest",
	"client/client.go":             "the scout, which finds the leader; one for each stream of watches; the keeper of leases; joined by Close",
	"client/keeper.go":             "the sender of renewals; joined when its connection ends",
	"client/pipe.go":               "the sender of a pipe; joined when its stream ends",
	"client/pool.go":               "one question to each member; joined at once",
	"client/watch_stream.go":       "the sender of a stream of watches; joined when its connection ends",
	"clock/fake.go":                "AfterFunc's function, as time.AfterFunc does",
	"cmd/kvctl/check.go":           "the clients of a check and the pace they write at; joined before the verdict",
	"cmd/kvctl/endpoint.go":        "one caller for each endpoint that is asked; joined before the command goes on",
	"cmd/kvctl/migrate.go":         "the reader of the operator's Enter",
	"cmd/kvctl/migrate_source.go":  "the receiver of the source's changes; it ends with the migration",
	"cmd/kvd/main.go":              "the waiter for signals; what tends the heap, joined when the member has ended",
	"mvcc/hub.go":                  "the waking of more streams than publish should wait for",
	"mvcc/load.go":                 "the parallel scan of the engine at start; joined before Open returns",
	"mvcc/engine/boltcheck.go":     "the parallel check of the file at start; joined before OpenBolt returns",
	"raft/node.go":                 "loop, append and apply; the making of a snapshot for a follower",
	"raft/transport/grpc.go":       "the gRPC server's Serve",
	"raft/transport/inbound.go":    "one watcher for each inbound stream's end",
	"raft/transport/link.go":       "one sender for each peer and class, and the watchers of its stream",
	"raft/transport/memory.go":     "one deliverer for each simulated member",
	"raft/transport/transfer.go":   "one sender, and one receiver, for each snapshot on its way",
	"scripts/cluster.go":           "one waiter for each member it started",
	"server/direct/answer.go":      "the sending of what a connection's calls have ended with; it ends when they pause",
	"server/direct/stream.go":      "one handler for each stream, joined when the client port ends, and the end of its time",
	"server/gateway_conn.go":       "one server side for each RPC of the JSON gateway; it ends with the HTTP request",
	"server/h2test/client.go":      "the reader of a test's connection, which ends with it",
	"server/intake.go":             "the workers of calls that may have to wait; joined when their pipeline, or the client port, ends",
	"server/lane/stream.go":        "the sending of what a connection's watches have gathered; it ends when they pause",
	"server/lease.go":              "one loop for each keep-alive stream",
	"server/listen_cork.go":        "the sending of what a connection's writes have gathered; it ends when they pause",
	"server/listen_gate.go":        "each gate's acceptor, and the opening of each new connection",
	"server/listen_rpc.go":         "the gRPC and HTTP servers of the client port",
	"server/metrics_peer.go":       "one question to each member, every four seconds; joined before the next",
	"server/pipeline.go":           "the receiver of each pipelined stream",
	"server/repair.go":             "the repair, which ends before anything else starts",
	"server/resource/run.go":       "the feed and the controllers; joined before Run returns",
	"server/server_open.go":        "the flusher of the store",
	"server/server_run.go":         "the member's background tasks, joined before Run returns",
	"server/maintenance_upkeep.go": "the background tasks of maintenance, joined before Run returns; one caller for each member that is asked",
	"server/watch.go":              "one receiver for each watch stream",
}

// simulated lists the packages that a simulation runs: they take time, chance,
// files and sockets from interfaces only.
var simulated = []string{"api", "clock", "raft", "raft/wal", "raft/vfs", "raft/transport", "mvcc", "mvcc/engine", "mvcc/watchcheck", "auth", "topk", "server", "chaos/sim", "chaos/workload", "server/admission", "server/resource", "server/resource/object"}

// adapters are the files where the real thing enters, by the packages (or
// package.Function) that each may use.
var adapters = map[string][]string{
	"chaos/sim/sim.go":            {"crypto/rand"},
	"clock/clock.go":              {"time"},
	"raft/transport/dial.go":      {"net"},
	"raft/transport/grpc.go":      {"net"},
	"raft/vfs/os_linux.go":        {"os"},
	"raft/vfs/os_unix.go":         {"os"},
	"raft/vfs/os.go":              {"os"},
	"mvcc/engine/bolt.go":         {"os"},
	"mvcc/engine/boltcheck.go":    {"os"},
	"server/auth.go":              {"net"},
	"server/auth_random.go":       {"crypto/rand"},
	"server/direct.go":            {"net"},
	"server/discovery_resolve.go": {"net"},
	"server/listen_cork.go":       {"net"},
	"server/listen.go":            {"os", "net"},
	"server/listen_gate.go":       {"net"},
	"server/listen_refusal.go":    {"os", "net"},
	"server/tls_address.go":       {"net"},
	"server/tls_auto.go":          {"os", "net", "crypto/rand"},
	"server/tls_files.go":         {"os"},
}

// clockCalls are what package time may not be used for outside an adapter.
var clockCalls = []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Sleep", "Tick"}

// source is one parsed file of ours.
type source struct {
	name  string // slash path from the root
	pkg   string // slash path of its folder
	test  bool
	lines int
	text  []byte
	fset  *token.FileSet
	file  *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// Nested modules keep their own house; data is not source.
			if name == "compat" || name == "examples" || d.Name() == "testdata" || (strings.HasPrefix(d.Name(), ".") && name != ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, ".pb.go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		out = append(out, source{
			name: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
			lines: strings.Count(string(text), "\n"), text: text, fset: fset, file: file,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("found %d source files only; is this the root of the module?", len(out))
	}
	return out
}

func TestImportArrows(t *testing.T) {
	for _, s := range sources(t) {
		if s.pkg == "." {
			continue
		}
		allowed, known := arrows[s.pkg]
		if !known {
			t.Errorf("%s: package %s has no line in arrows: say what it may import", s.name, s.pkg)
			continue
		}
		for _, imp := range imports(s) {
			of, ours := strings.CutPrefix(imp, module)
			if ours && of != s.pkg && !s.test && !slices.Contains(allowed, of) {
				t.Errorf("%s imports %s: there is no such arrow", s.name, of)
			}
		}
	}
}

func imports(s source) []string {
	var out []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			out = append(out, p)
		}
	}
	return out
}

func TestFormat(t *testing.T) {
	for _, s := range sources(t) {
		if formatted, err := format.Source(s.text); err != nil || !bytes.Equal(formatted, s.text) {
			t.Errorf("%s is not as gofmt writes it (%v): gofmt -w %s", s.name, err, s.name)
		}
	}
}

func TestSizes(t *testing.T) {
	used := map[string]bool{}
	for _, s := range sources(t) {
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines; %d are the most", s.name, s.lines, maxFileLines)
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
			key := s.name + ":" + fn.Name.Name
			if n > maxFuncLines && longFuncs[key] == "" {
				t.Errorf("%s has %d lines; %d are the most (exceptions stand in longFuncs, with a reason)", key, n, maxFuncLines)
			}
			used[key] = used[key] || n > maxFuncLines
		}
	}
	for key := range longFuncs {
		if !used[key] {
			t.Errorf("longFuncs lists %s, which is short or gone", key)
		}
	}
}

func TestGoroutinesStartInListedFiles(t *testing.T) {
	found := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok || isWaitGroupGo(n) {
				found[s.name] = true
			}
			return true
		})
	}
	for _, name := range sorted(found) {
		if spawners[name] == "" {
			t.Errorf("%s starts goroutines: list it in spawners, and in ARCHITECTURE.md", name)
		}
	}
	for name := range spawners {
		if !found[name] {
			t.Errorf("spawners lists %s, which starts none", name)
		}
	}
}

// isWaitGroupGo reports whether n calls a method named Go, as sync.WaitGroup
// and errgroup have it.
func isWaitGroupGo(n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Go"
}

func TestBannedCalls(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.Contains(simulated, s.pkg) {
			continue
		}
		may := adapters[s.name]
		names := importNames(s)
		for _, banned := range []string{"os", "net", "crypto/rand"} {
			for name, imp := range names {
				if imp == banned && !slices.Contains(may, banned) {
					t.Errorf("%s imports %s (as %s): only adapters may", s.name, banned, name)
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			id, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			if why := bannedCall(names[id.Name], sel.Sel.Name, may); why != "" {
				t.Errorf("%s: %s.%s: %s", s.fset.Position(sel.Pos()), id.Name, sel.Sel.Name, why)
			}
			return true
		})
	}
}

// bannedCall says why a simulated package may not use name of package imp.
func bannedCall(imp, name string, may []string) string {
	switch {
	case slices.Contains(may, imp):
		return ""
	case imp == "time" && slices.Contains(clockCalls, name):
		return "take a clock.Clock"
	case (imp == "math/rand" || imp == "math/rand/v2") && !strings.HasPrefix(name, "New") && ast.IsExported(name) &&
		!slices.Contains([]string{"Rand", "Source", "PCG", "ChaCha8"}, name):
		return "take a seeded source"
	}
	return ""
}

// importNames maps the names by which a file knows its imports to their paths.
func importNames(s source) map[string]string {
	out := map[string]string{}
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := path.Base(p)
		if p == "math/rand/v2" {
			name = "rand"
		}
		if spec.Name != nil {
			name = spec.Name.Name
		}
		out[name] = p
	}
	return out
}

func TestNamesAndInit(t *testing.T) {
	refused := []string{"util", "utils", "common", "helpers", "misc", "errors", "sync", "context", "time"}
	for _, s := range sources(t) {
		if slices.Contains(refused, s.file.Name.Name) {
			t.Errorf("%s: package %s says nothing, or hides one of the standard library", s.name, s.file.Name.Name)
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name == "init" && s.file.Name.Name != "main" {
				t.Errorf("%s has an init function: pass what it sets up", s.name)
			}
		}
	}
}

// TestDocs refuses a package without a doc comment, and a doc that still says
// nothing.
func TestDocs(t *testing.T) {
	docs := map[string]int{}
	for _, s := range sources(t) {
		if !s.test && s.pkg != "." {
			docs[s.pkg] += len(s.file.Doc.Text())
		}
	}
	for _, pkg := range sorted(docs) {
		if docs[pkg] < 60 {
			t.Errorf("package %s has no doc comment that teaches (%d bytes)", pkg, docs[pkg])
		}
	}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, fmt.Sprint(k))
	}
	sort.Strings(keys)
	return keys
}
