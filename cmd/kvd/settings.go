package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/tracing"
)

// errUsage is wrapped by every mistake on the command line, in the environment
// or in the configuration file.
var errUsage = errors.New("usage")

// settings is what the configuration says, after all sources were read.
type settings struct {
	server     server.Config
	logLevel   string
	logFormat  string
	logOutputs []string
	auditPath  string // empty: no audit log
	traces     bool
	tracing    tracing.Config // counts if traces
	configFile string
	version    bool
	help       bool

	given map[string]bool // options that were set by a person
	notes []string        // to be logged as warnings once there is a logger
}

// assignment is one value for one option, and where it came from.
type assignment struct {
	option *option
	value  string
	from   string // as the person wrote it, for messages
}

// load reads the configuration. A configuration file stands alone; else flags
// win over the environment, and that over defaults.
func load(args, environ []string, readFile func(string) ([]byte, error)) (*settings, error) {
	s := &settings{
		server: server.DefaultConfig(), logLevel: "info", logFormat: "json",
		logOutputs: []string{"default"}, given: map[string]bool{},
		tracing: tracing.Config{Address: "localhost:4317", Service: "etcd"},
	}
	flags, err := parseArgs(args)
	if err != nil {
		return nil, err
	}
	env, strangers := parseEnv(environ)
	s.notes = append(s.notes, strangers...)
	// The file's own option decides where the others come from.
	for _, list := range [][]assignment{env, flags} {
		for _, a := range list {
			if a.option.name == "config-file" {
				s.configFile = a.value
			}
		}
	}
	if s.configFile == "" {
		// Later ones win: the environment first, then the flags in their order.
		err = s.assign(append(env, flags...))
		s.requireAdvertised()
	} else {
		err = s.assignFile(flags, readFile)
	}
	if err != nil || s.help || s.version {
		return s, err
	}
	s.server.TokenGiven = s.given["initial-cluster-token"]
	s.server.InitialClusterGiven = s.given["initial-cluster"]
	s.server.Complete()
	if err := s.server.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	if err := s.tracing.Check(); s.traces && err != nil {
		return nil, fmt.Errorf("%w: distributed tracing configurition is not valid: (%w)", errUsage, err) // etcd's spelling
	}
	return s, nil
}

// requireAdvertised forgets the default advertised URLs when a person chose
// where to listen: the default would send clients elsewhere. Check then asks.
func (s *settings) requireAdvertised() {
	if s.given["listen-client-urls"] && !s.given["advertise-client-urls"] {
		s.server.AdvertiseClientURLs = nil
	}
}

func (s *settings) assign(list []assignment) error {
	for _, a := range list {
		if err := s.set(a); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) set(a assignment) error {
	s.given[a.option.name] = true
	switch a.option.effect {
	case ignored:
		s.notes = append(s.notes, fmt.Sprintf("%s has no effect: %s", a.from, a.option.note))
		return nil
	case notYet:
		if asksForNothing(a.value) {
			return nil
		}
		return fmt.Errorf("%w: %s: this version of kvd does not serve it yet", errUsage, a.from)
	}
	if err := a.option.set(s, a.value); err != nil {
		return fmt.Errorf("%w: %s: %w", errUsage, a.from, err)
	}
	return nil
}

// parseArgs reads -name value, --name=value and, for switches, --name alone.
func parseArgs(args []string) ([]assignment, error) {
	var out []assignment
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, ok := strings.CutPrefix(arg, "-")
		if !ok || name == "" || name == "-" {
			return nil, fmt.Errorf("%w: %q is not a valid flag", errUsage, arg)
		}
		name = strings.TrimPrefix(name, "-")
		name, value, hasValue := strings.Cut(name, "=")
		if name == "h" {
			name = "help"
		}
		o := lookup(name)
		if o == nil {
			return nil, fmt.Errorf("%w: unknown flag --%s%s", errUsage, name, suggestion("--", name))
		}
		switch {
		case hasValue:
		case o.bool:
			value = "true"
		case len(args) == 0:
			return nil, fmt.Errorf("%w: flag --%s needs a value", errUsage, name)
		default:
			value, args = args[0], args[1:]
		}
		out = append(out, assignment{o, value, "--" + name})
	}
	return out, nil
}

// parseEnv reads ETCD_* variables; empty ones count as absent. Unknown ones are
// only noted: Kubernetes makes some up for a service called etcd.
func parseEnv(environ []string) (known []assignment, notes []string) {
	byEnv := map[string]*option{}
	for i := range options {
		byEnv[options[i].env()] = &options[i]
	}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "ETCD_") || value == "" {
			continue
		}
		o := byEnv[name]
		if o == nil || o.name == "version" || o.name == "help" {
			notes = append(notes, "unrecognized environment variable "+name)
			continue
		}
		known = append(known, assignment{o, value, name})
	}
	sort.Slice(known, func(i, j int) bool { return known[i].from < known[j].from })
	sort.Strings(notes)
	return known, notes
}

// assignFile reads the configuration file. Of the flags only --help and
// --version still count.
func (s *settings) assignFile(flags []assignment, readFile func(string) ([]byte, error)) error {
	for _, a := range flags {
		switch a.option.name {
		case "help", "version":
			if err := s.set(a); err != nil {
				return err
			}
		case "config-file":
		default:
			s.notes = append(s.notes, a.from+" is ignored: with --config-file only the file counts")
		}
	}
	b, err := readFile(s.configFile)
	if err != nil {
		return fmt.Errorf("%w: --config-file: %w", errUsage, err)
	}
	list, err := parseFile(b)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errUsage, s.configFile, err)
	}
	return s.assign(list)
}

// sections are the nested parts of etcd's file, each with the prefix that its
// keys have as flags.
var sections = map[string]string{
	"client-transport-security": "",
	"peer-transport-security":   "peer-",
	"discovery-config":          "discovery-",
	"socket-options":            "socket-",
}

// parseFile reads YAML (or JSON, which is YAML) in the shape of etcd's file.
func parseFile(b []byte) ([]assignment, error) {
	asJSON, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, err
	}
	var keys map[string]any
	d := json.NewDecoder(bytes.NewReader(asJSON))
	d.UseNumber() // a quota does not fit a float's digits
	if err := d.Decode(&keys); err != nil {
		return nil, err
	}
	var out []assignment
	for key, value := range keys {
		prefix, nested := sections[key]
		part, isMap := value.(map[string]any)
		switch {
		case value == nil || strings.HasPrefix(key, "proxy"): // etcd's sample still has these
		case nested && isMap:
			values, err := sectionValues(key, prefix, part)
			if err != nil {
				return nil, err
			}
			out = append(out, values...)
		default:
			o := lookup(key)
			if o == nil || o.group == "Other" {
				return nil, fmt.Errorf("unknown key %q%s", key, suggestion("", key))
			}
			text, err := fileValue(o, value)
			if err != nil {
				return nil, err
			}
			if text != "" {
				out = append(out, assignment{o, text, key})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].from < out[j].from })
	return out, nil
}

// sectionNames are keys of the sections whose flags have other names.
var sectionNames = map[string]string{
	"allowed-cn":                   "cert-allowed-cn",
	"allowed-hostname":             "cert-allowed-hostname",
	"skip-client-san-verification": "skip-client-san-verification",
	"crl-file":                     "crl-file",
}

// sectionOption finds the option of a key in a nested section. One that nobody
// knows is an option that is not served, so that nothing may be asked for.
func sectionOption(prefix, key string) *option {
	name := prefix + key
	if long, ok := sectionNames[key]; ok {
		if prefix == "" {
			prefix = "client-"
		}
		name = prefix + long
	}
	if o := lookup(name); o != nil {
		return o
	}
	return &option{name: name, effect: notYet}
}

// sectionValues reads a nested section.
func sectionValues(section, prefix string, part map[string]any) ([]assignment, error) {
	var out []assignment
	for key, value := range part {
		if value == nil {
			continue
		}
		o := sectionOption(prefix, key)
		text, err := fileValue(o, value)
		if err != nil {
			return nil, err
		}
		out = append(out, assignment{o, text, section + "." + key})
	}
	return out, nil
}

// fileValue prints a value of the file as the flag would have it.
func fileValue(o *option, value any) (string, error) {
	switch v := value.(type) {
	case string:
		return v, nil
	case bool:
		return fmt.Sprint(v), nil
	case json.Number:
		if o.duration {
			n, err := v.Int64()
			if err != nil {
				return "", fmt.Errorf("%s: %s is not a whole number of nanoseconds", o.name, v)
			}
			return time.Duration(n).String(), nil
		}
		return v.String(), nil
	case []any:
		parts := make([]string, len(v))
		for i, p := range v {
			parts[i] = fmt.Sprint(p)
		}
		return strings.Join(parts, ","), nil
	}
	return "", fmt.Errorf("%s: a value of this shape is not understood", o.name)
}

// suggestion names the option whose name is nearest to a wrong one, if any is
// near enough to be meant.
func suggestion(dashes, wrong string) string {
	if rest, ok := strings.CutPrefix(wrong, "experimental-"); ok && lookup(rest) != nil {
		return fmt.Sprintf("; it is %s%s now", dashes, rest)
	}
	best, least := "", max(2, len(wrong)/3)+1
	for _, o := range options {
		if d := distance(wrong, o.name); d < least {
			best, least = o.name, d
		}
	}
	if best == "" {
		return "; see kvd --help"
	}
	return fmt.Sprintf("; did you mean %s%s?", dashes, best)
}

// distance is Levenshtein's: the edits that make a of b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
