package main

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keelson-io/keelson/api/jsonpath"
)

// global is what the flags of all commands say.
type global struct {
	endpoints        []string
	discoverySRV     string
	discoverySRVName string
	dialTimeout      time.Duration
	commandTimeout   time.Duration
	keepaliveTime    time.Duration
	keepaliveTimeout time.Duration
	maxSend, maxRecv int

	cert, key, cacert  string
	serverName         string
	insecureTransport  bool
	insecureSkipVerify bool

	user, password, token string

	output   string
	template *jsonpath.Template // of outJSONPath
	hex      bool
	debug    bool

	context string
	given   map[string]bool // flags that the command line itself sets
}

// Forms of output.
const (
	outSimple = "simple"
	outTable  = "table"
	outJSON   = "json"
	outYAML   = "yaml"
	outName   = "name"
	outRaw    = "raw"
	outWide   = "wide" // a table with more columns
	// outJSONPath is followed by = and a template.
	outJSONPath = "jsonpath"
)

var outputs = []string{outSimple, outTable, outWide, outJSON, outYAML, outName, outRaw, outJSONPath + "=TEMPLATE"}

// define adds the global flags.
func (g *global) define(f *pflag.FlagSet) {
	f.StringSliceVar(&g.endpoints, "endpoints", []string{"127.0.0.1:2379"}, "members' client `addresses`: host:port, http(s)://host:port, unix://path")
	f.StringVarP(&g.discoverySRV, "discovery-srv", "d", "", "DNS `domain` whose SRV records name the endpoints")
	f.StringVar(&g.discoverySRVName, "discovery-srv-name", "", "added to the `name` of the service that is looked up")
	f.DurationVar(&g.dialTimeout, "dial-timeout", 2*time.Second, "how long to wait for a connection")
	f.DurationVar(&g.commandTimeout, "command-timeout", 5*time.Second, "how long a short command may take")
	f.DurationVar(&g.keepaliveTime, "keepalive-time", 5*time.Second, "how long a connection may be silent before it is probed")
	f.DurationVar(&g.keepaliveTimeout, "keepalive-timeout", 6*time.Second, "how long to wait for the answer of a probe")
	f.IntVar(&g.maxSend, "max-request-bytes", 0, "the largest request to send (0: 2 MiB)")
	f.IntVar(&g.maxRecv, "max-recv-bytes", 0, "the largest answer to accept (0: no limit)")
	f.StringVar(&g.cert, "cert", "", "certificate `file` that says who this client is")
	f.StringVar(&g.key, "key", "", "its key `file`")
	f.StringVar(&g.cacert, "cacert", "", "`file` of the CAs that the servers' certificates must come from")
	f.StringVar(&g.serverName, "tls-server-name", "", "the `name` that the servers' certificates must have, instead of the endpoint's")
	f.BoolVar(&g.insecureTransport, "insecure-transport", true, "speak plainly with endpoints that do not ask for TLS (https://, or one of the TLS flags)")
	f.BoolVar(&g.insecureSkipVerify, "insecure-skip-tls-verify", false, "accept any certificate of the server; for tests only")
	f.StringVar(&g.user, "user", "", "`name[:password]`; the password is asked for if it is missing")
	f.StringVar(&g.password, "password", "", "password of --user")
	f.StringVar(&g.token, "auth-jwt-token", "", "JWT to send instead of a login")
	f.StringVarP(&g.output, "output", "o", outSimple, "`form` of output: "+strings.Join(outputs, ", "))
	f.StringVarP(&g.output, "write-out", "w", outSimple, "etcdctl's name of --output")
	f.BoolVar(&g.hex, "hex", false, "print keys and values as hexadecimal escapes")
	f.StringVar(&g.context, "context", "", "the `name` of the context to use, instead of the one in use")
	f.BoolVar(&g.debug, "debug", false, "print the settings that are not defaults")
	for _, name := range []string{"write-out", "discovery-srv-name", "keepalive-time", "keepalive-timeout", "max-request-bytes", "max-recv-bytes"} {
		f.Lookup(name).Hidden = true
	}
}

// complete tells shells what the values of flags can be.
func (a *app) complete(root *cobra.Command) {
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)) // the flags exist
	_ = root.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		c, err := readContexts(contextsPath(environment(a.environ)))
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return slices.Sorted(maps.Keys(c.Contexts)), cobra.ShellCompDirectiveNoFileComp
	})
}

// environment is a process's environment as a map.
func environment(list []string) map[string]string {
	env := map[string]string{}
	for _, pair := range list {
		k, v, _ := strings.Cut(pair, "=")
		env[k] = v
	}
	return env
}

// settle fills in what the command line does not say, from the environment and
// from the context in use, and checks the result.
func (a *app) settle(f *pflag.FlagSet) error {
	env := environment(a.environ)
	a.given = map[string]bool{}
	// The flag set of the sub-command did the parsing, so that Visit knows of nothing.
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed {
			a.given[flag.Name] = true
		}
	})
	var failed error
	f.VisitAll(func(flag *pflag.Flag) {
		name := strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		for _, prefix := range []string{"KVCTL_", "ETCDCTL_"} {
			v, ok := env[prefix+name]
			if flag.Changed || !ok || v == "" || flag.Name == "output" && a.given["write-out"] {
				continue
			}
			if err := f.Set(flag.Name, v); err != nil && failed == nil {
				failed = usage("environment variable %s: %v", prefix+name, err)
			}
		}
	})
	if failed != nil {
		return failed
	}
	if err := a.fromContext(f, env); err != nil {
		return err
	}
	if a.debug {
		f.VisitAll(func(flag *pflag.Flag) {
			if flag.Changed && flag.Name != "password" && flag.Name != "user" && flag.Name != "auth-jwt-token" {
				fmt.Fprintf(a.errs, "%s=%s\n", flag.Name, flag.Value)
			}
		})
	}
	return a.check(f)
}

func (a *app) check(f *pflag.FlagSet) error {
	if form, template, ok := strings.Cut(a.output, "="); ok && form == outJSONPath {
		var err error
		if a.template, err = jsonpath.Parse(template); err != nil {
			return usage("--output %s: %v", a.output, err)
		}
		a.output = outJSONPath
	} else if a.output == outJSONPath {
		return usage("--output jsonpath needs a template: -o jsonpath='{.metadata.name}'")
	}
	switch {
	case a.output != outJSONPath && !slices.Contains(outputs, a.output):
		return usage("--output %q is none of %s", a.output, strings.Join(outputs, ", "))
	case (a.cert == "") != (a.key == ""):
		return usage("--cert and --key belong together")
	case a.token != "" && a.user != "":
		return usage("--auth-jwt-token and --user exclude each other")
	case a.dialTimeout <= 0 || a.commandTimeout <= 0:
		return usage("timeouts must be >0")
	}
	if a.discoverySRV != "" && !f.Changed("endpoints") {
		if err := a.lookUp(); err != nil {
			return err
		}
	}
	a.endpoints = slices.DeleteFunc(a.endpoints, func(s string) bool { return strings.TrimSpace(s) == "" })
	if len(a.endpoints) == 0 {
		return usage("--endpoints is empty")
	}
	return nil
}

// lookUp takes the endpoints from DNS, as etcdctl does.
func (a *app) lookUp() error {
	a.endpoints = nil
	suffix := ""
	if a.discoverySRVName != "" {
		suffix = "-" + a.discoverySRVName
	}
	var last error
	for _, s := range []struct{ service, scheme string }{{"etcd-client-ssl", "https"}, {"etcd-client", "http"}} {
		_, records, err := net.LookupSRV(s.service+suffix, "tcp", a.discoverySRV)
		if err != nil {
			last = err
			continue
		}
		for _, r := range records {
			a.endpoints = append(a.endpoints, fmt.Sprintf("%s://%s:%d", s.scheme, strings.TrimSuffix(r.Target, "."), r.Port))
		}
	}
	if len(a.endpoints) == 0 {
		return &failure{code: exitUnreachable, did: "look up " + a.discoverySRV, err: last, next: "check the SRV records _etcd-client._tcp and _etcd-client-ssl._tcp, or give --endpoints"}
	}
	return nil
}
