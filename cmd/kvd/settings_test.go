package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keelson-io/keelson/server"
)

var rewrite = flag.Bool("rewrite", false, "write the pages that are printed from the table")

// file makes a readFile that knows one file.
func file(text string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text == "" {
			return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
		}
		return []byte(text), nil
	}
}

func mustLoad(t *testing.T, args, env []string, text string) *settings {
	t.Helper()
	s, err := load(args, env, file(text))
	if err != nil {
		t.Fatalf("load(%q, %q): %v", args, env, err)
	}
	return s
}

func TestDefaultsAreASingleMember(t *testing.T) {
	s := mustLoad(t, nil, nil, "")
	c := s.server
	for _, is := range [][2]string{
		{c.Name, "default"}, {c.DataDir, "default.kvd"}, {c.InitialCluster, "default=http://localhost:2380"},
		{urlTexts(c.ListenClientURLs)[0], "http://localhost:2379"}, {urlTexts(c.ListenPeerURLs)[0], "http://localhost:2380"},
		{s.logLevel, "info"}, {s.logFormat, "json"}, {strings.Join(s.logOutputs, ","), "default"},
	} {
		if is[0] != is[1] {
			t.Errorf("got %q, want %q", is[0], is[1])
		}
	}
	if !c.NewCluster || c.TokenGiven || c.InitialClusterGiven || len(s.notes) != 0 {
		t.Errorf("a default counts as given: %+v", s)
	}
}

// TestDefaultsInHelpAreTrue sets every option to the default that help prints
// and expects what no setting at all gives.
func TestDefaultsInHelpAreTrue(t *testing.T) {
	plain := mustLoad(t, nil, nil, "")
	for _, o := range options {
		if o.effect != works || o.def == "" || strings.Contains(o.def, "$") || o.group == "Other" {
			continue
		}
		s := mustLoad(t, []string{"--" + o.name + "=" + o.def, "--advertise-client-urls=http://localhost:2379"}, nil, "")
		s.given, s.server.TokenGiven = nil, false
		if got, want := fmt.Sprintf("%+v", *s), fmt.Sprintf("%+v", withoutGiven(*plain)); got != want {
			t.Errorf("--%s=%s changes the configuration:\n got %s\nwant %s", o.name, o.def, got, want)
		}
	}
}

func withoutGiven(s settings) settings {
	s.given = nil
	return s
}

func TestPrecedence(t *testing.T) {
	env := []string{"ETCD_NAME=env", "ETCD_DATA_DIR=/env", "HOME=/root", "ETCD_HEARTBEAT_INTERVAL="}
	s := mustLoad(t, []string{"-name", "flag"}, env, "")
	if s.server.Name != "flag" || s.server.DataDir != "/env" {
		t.Errorf("flag over environment over default: %s, %s", s.server.Name, s.server.DataDir)
	}
	if s.server.HeartbeatInterval != 100*time.Millisecond {
		t.Errorf("an empty variable counts: %s", s.server.HeartbeatInterval)
	}
	for _, from := range []struct{ args, env []string }{
		{[]string{"--config-file=x", "--name=flag"}, env},
		{nil, append(env, "ETCD_CONFIG_FILE=x")},
	} {
		s := mustLoad(t, from.args, from.env, "name: file\n")
		if s.server.Name != "file" || s.server.DataDir != "file.kvd" {
			t.Errorf("a configuration file must stand alone: %s, %s", s.server.Name, s.server.DataDir)
		}
	}
}

func TestFlagForms(t *testing.T) {
	for _, args := range [][]string{
		{"-name", "a", "-unsafe-no-fsync", "--max-txn-ops=7"},
		{"--name=a", "--unsafe-no-fsync=true", "-max-txn-ops", "7"},
		{"--name", "x", "--max-txn-ops", "7", "--name", "a", "--unsafe-no-fsync"},
	} {
		s := mustLoad(t, args, nil, "")
		if s.server.Name != "a" || !s.server.UnsafeNoSync || s.server.MaxTxnOps != 7 {
			t.Errorf("%q: %+v", args, s.server)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--lisen-client-urls=x"}, "unknown flag --lisen-client-urls; did you mean --listen-client-urls?"},
		{[]string{"-nmae", "x"}, "unknown flag --nmae; did you mean --name?"},
		{[]string{"--experimental-watch-progress-notify-interval=1s"}, "it is --watch-progress-notify-interval now"},
		{[]string{"--xyzzyplugh"}, "see kvd --help"},
		{[]string{"start"}, `"start" is not a valid flag`},
		{[]string{"--"}, `"--" is not a valid flag`},
		{[]string{"--name"}, "flag --name needs a value"},
		{[]string{"--max-txn-ops=many"}, "--max-txn-ops"},
		{[]string{"--max-request-bytes=-1"}, "--max-request-bytes"},
		{[]string{"--max-concurrent-streams=4294967296"}, "from 0 to 4294967295"},
		{[]string{"--heartbeat-interval=0"}, "--heartbeat-interval must be >0 (set to 0ms)"},
		{[]string{"--heartbeat-interval=300"}, "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]"},
		{[]string{"--election-timeout=60000"}, "--election-timeout[60000ms] is too long, and should be set less than 50000ms"},
		{[]string{"--listen-client-urls=http://127.0.0.1:1"}, "--advertise-client-urls is required when --listen-client-urls is set explicitly"},
		{[]string{"--listen-peer-urls=http://example.com:1"}, "expected IP in URL for binding (http://example.com:1)"},
		{[]string{"--listen-peer-urls=127.0.0.1:1"}, "--listen-peer-urls"},
		{[]string{"--listen-peer-urls=http://127.0.0.1:1/x"}, "URL must not contain a path: http://127.0.0.1:1/x"},
		{[]string{"--listen-peer-urls=https://127.0.0.1:1"}, "cannot listen on TLS for https://127.0.0.1:1: KeyFile and CertFile are not presented"},
		{[]string{"--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1"}, "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme"},
		{[]string{"--listen-metrics-urls=https://127.0.0.1:1"}, "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"},
		{[]string{"--peer-cert-file=a"}, "KeyFile and CertFile must both be present[key: , cert: a]"},
		{[]string{"--cert-file=a", "--key-file=b", "--client-cert-file=c"}, "ClientKeyFile and ClientCertFile must both be present or both absent"},
		{[]string{"--peer-cert-allowed-cn=a,b", "--peer-cert-allowed-hostname=c"}, "are mutually exclusive"},
		{[]string{"--tls-min-version=TLS1.1"}, `unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)`},
		{[]string{"--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"}, "min version (TLS1.3) is greater than max version (TLS1.2)"},
		{[]string{"--tls-min-version=TLS1.3", "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, "cipher suites cannot be configured when only TLS1.3 is enabled"},
		{[]string{"--cipher-suites=TLS_NULL"}, `unexpected TLS cipher suite "TLS_NULL"`},
		{[]string{"--cipher-suites=TLS_RSA_WITH_RC4_128_SHA"}, `TLS cipher suite "TLS_RSA_WITH_RC4_128_SHA" is weak and not served`},
		{[]string{"--auto-tls", "--self-signed-cert-validity=0"}, "selfSignedCertValidity is invalid,it should be greater than 0"},
		{[]string{"--self-signed-cert-validity=-1"}, "--self-signed-cert-validity"},
		{[]string{"--cors=example.com"}, `--cors: "example.com" is not an origin`},
		{[]string{"--initial-cluster-state=old"}, `invalid value "old", possible values are "new", "existing"`},
		{[]string{"--memory-mlock"}, "--memory-mlock: this version of kvd does not serve it yet"},
		{[]string{"--unsafe-no-fsync=maybe"}, `"maybe" is neither true nor false`},
		{[]string{"--watch-progress-notify-interval=0s"}, "--watch-progress-notify-interval must be >0"},
		{[]string{"--config-file=absent"}, "--config-file: open absent"},
		{[]string{"--advertise-client-urls=http://:1"}, `--advertise-client-urls "http://:1" must be in the format "host:port"`},
		{[]string{"--initial-advertise-peer-urls=http://:1"}, `--initial-advertise-peer-urls "http://:1" must be "host:port"`},
		{[]string{"--name="}, "--name must not be empty"},
	} {
		_, err := load(c.args, nil, file(""))
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), c.want) || exitCode(err) != exitConfig {
			t.Errorf("%q: got %v (code %d), want %q", c.args, err, exitCode(err), c.want)
		}
	}
}

func TestNotesForWhatHasNoEffect(t *testing.T) {
	s := mustLoad(t, []string{"--snapshot-count=5000", "--cert-file=", "--client-cert-auth=false"}, []string{"ETCD_SERVICE_HOST=1.2.3.4"}, "")
	if len(s.notes) != 2 || !strings.Contains(s.notes[0], "ETCD_SERVICE_HOST") || !strings.Contains(s.notes[1], "--snapshot-count has no effect") {
		t.Errorf("notes: %q", s.notes)
	}
}

// etcdSample has the keys of the sample that etcd ships.
const etcdSample = `
# This is the configuration file for the etcd server.
name: 'm1'
data-dir: /data
wal-dir:
snapshot-count: 10000
heartbeat-interval: 50
election-timeout: 500
quota-backend-bytes: 8589934592
listen-peer-urls: http://localhost:3380,unix://sock
listen-client-urls: http://localhost:3379
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://localhost:3380
advertise-client-urls: http://localhost:3379
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster:
initial-cluster-token: 'tok'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
proxy-failure-wait: 5000
client-transport-security:
  cert-file:
  key-file:
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
peer-transport-security:
  cert-file:
  client-cert-auth: false
self-signed-cert-validity: 1
log-level: debug
logger: zap
log-outputs: [stderr, /tmp/x.log]
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: "0"
watch-progress-notify-interval: 5000000000
grpc-keepalive-min-time: 10s
`

func TestConfigFile(t *testing.T) {
	s := mustLoad(t, []string{"--config-file=etcd.conf.yml"}, nil, etcdSample)
	c := s.server
	if c.Name != "m1" || c.DataDir != "/data" || c.HeartbeatInterval != 50*time.Millisecond || c.ElectionTimeout != 500*time.Millisecond ||
		c.QuotaBytes != 8589934592 || !c.EnablePprof || !c.TokenGiven || c.ClusterToken != "tok" ||
		c.WatchProgressInterval != 5*time.Second || c.KeepaliveMinTime != 10*time.Second {
		t.Errorf("not read as written: %+v", c)
	}
	if got := urlTexts(c.ListenPeerURLs); !slices.Equal(got, []string{"http://localhost:3380", "unix://sock"}) {
		t.Errorf("URLs: %q", got)
	}
	if !slices.Equal(s.logOutputs, []string{"stderr", "/tmp/x.log"}) || s.logLevel != "debug" || c.InitialCluster != "m1=http://localhost:3380" {
		t.Errorf("lists and defaults: %q %q %q", s.logOutputs, s.logLevel, c.InitialCluster)
	}
	for text, want := range map[string]string{
		"nmae: x\n":          `unknown key "nmae"; did you mean name?`,
		"version: true\n":    `unknown key "version"`,
		"name: a\nname: b\n": "already set",
		"name: {a: b}\n":     "is not understood",
		"- a\n":              "cannot unmarshal",
		"client-transport-security:\n  cert-file: x\n": "KeyFile and CertFile must both be present[key: , cert: x]",
		"client-transport-security:\n  crt-file: x\n":  "client-transport-security.crt-file",
		"watch-progress-notify-interval: 1.5\n":        "nanoseconds",
	} {
		_, err := load([]string{"--config-file=f"}, nil, file(text))
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestConfigFileSections(t *testing.T) {
	c := mustLoad(t, []string{"--config-file=f"}, nil, `
client-transport-security: {cert-file: c, key-file: k, client-cert-auth: true, trusted-ca-file: ca, auto-tls: true, allowed-hostname: [h1, h2]}
peer-transport-security: {cert-file: pc, key-file: pk, client-cert-file: pcc, client-key-file: pck, allowed-cn: [n1, n2], skip-client-san-verification: true, auto-tls: true}
peer-crl-file: crl
cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
cors: https://a.example,https://b.example
host-whitelist: a,b
`).server
	client := server.TLS{CertFile: "c", KeyFile: "k", ClientCertAuth: true, TrustedCAFile: "ca", Auto: true, AllowedHostnames: []string{"h1", "h2"}}
	peer := server.TLS{CertFile: "pc", KeyFile: "pk", ClientCertFile: "pcc", ClientKeyFile: "pck", CRLFile: "crl",
		AllowedCNs: []string{"n1", "n2"}, SkipClientSANVerify: true, Auto: true}
	if !reflect.DeepEqual(c.ClientTLS, client) || !reflect.DeepEqual(c.PeerTLS, peer) {
		t.Errorf("not read as written:\n%+v\n%+v", c.ClientTLS, c.PeerTLS)
	}
	if len(c.CipherSuites) != 1 || len(c.CORS) != 2 || len(c.HostWhitelist) != 2 {
		t.Errorf("lists: %q %q %q", c.CipherSuites, c.CORS, c.HostWhitelist)
	}
}

func TestTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range options {
		if seen[o.name] {
			t.Errorf("--%s stands twice in the table", o.name)
		}
		seen[o.name] = true
		if (o.effect == works) != (o.set != nil) || (o.effect == works) != slices.Contains(groups, o.group) {
			t.Errorf("--%s: effect, setter and group disagree", o.name)
		}
		if o.effect == works && o.help == "" || o.effect == ignored && o.note == "" {
			t.Errorf("--%s says nothing about itself", o.name)
		}
	}
}

func TestHelp(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run([]string{"--help"}, nil, &out, &errs); code != exitOK || errs.Len() > 0 {
		t.Fatalf("code %d, %s", code, errs.String())
	}
	// envtest looks for this one in the text.
	for _, want := range []string{"--unsafe-no-fsync", "--name 'default'", "--cert-file"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q", want)
		}
	}
	out.Reset()
	if code := run([]string{"-version"}, nil, &out, &errs); code != exitOK || !strings.HasPrefix(out.String(), "kvd Version: ") {
		t.Errorf("version: code %d, %q", code, out.String())
	}
}

// TestDocs holds the operators' page equal to the table.
func TestDocs(t *testing.T) {
	var want bytes.Buffer
	printDocs(&want)
	page := filepath.Join("..", "..", "docs", "operators", "kvd.md")
	if *rewrite {
		if err := os.WriteFile(page, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("docs/operators/kvd.md is not what the table says (run with -rewrite): %v", err)
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add([]byte(etcdSample))
	f.Add([]byte("{}"))
	f.Add([]byte("name: [1, {a: b}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := load([]string{"--config-file=f"}, nil, func(string) ([]byte, error) { return b, nil })
		if err == nil && s.server.Check() != nil {
			t.Errorf("an accepted file does not pass the check: %q", b)
		}
		if err != nil && !errors.Is(err, errUsage) {
			t.Errorf("%q: %v is not a usage error", b, err)
		}
	})
}
