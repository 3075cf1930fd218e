package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"sigs.k8s.io/yaml"
)

// The files of deploy/ name flags, keys and exit codes: they are held against
// kvd's own.

func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../deploy/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSampleStarts starts a member from the sample configuration, with its own
// directory and ports.
func TestSampleStarts(t *testing.T) {
	s, metrics, dir := newSite(t), freeAddr(t), t.TempDir()
	text := strings.NewReplacer("127.0.0.1:2379", s.client, "127.0.0.1:2380", s.peer, "127.0.0.1:2381", metrics,
		"/var/lib/keelson/data", s.dir).Replace(deployed(t, "kvd.yaml"))
	if err := os.WriteFile(dir+"/kvd.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, dir, "--config-file", "kvd.yaml")
	p.says("ready to serve client requests")
	if _, err := pb.NewKVClient(dial(t, s.client)).Put(t.Context(), &pb.PutRequest{Key: []byte("k")}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	if body, err := fetch(metrics, "/readyz"); err != nil || body != "ok\n" {
		t.Errorf("%q, %v", body, err)
	}
	before, _, _ := strings.Cut(p.output.String(), "starting kvd")
	if strings.Contains(before, `"level":"warn"`) { // later ones are about a slow machine
		t.Errorf("the sample is warned about:\n%s", p.output)
	}
}

// TestSampleKeys: what stands behind # in the sample is right, too, and shows
// defaults where there are any.
func TestSampleKeys(t *testing.T) {
	text := deployed(t, "kvd.yaml")
	if _, err := parseFile([]byte(text)); err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^#([a-z][a-z0-9-]*: .*|[a-z-]+-security:|  [a-z-]+: .*)$`)
	var lines []string
	for _, m := range example.FindAllStringSubmatch(text, -1) {
		if !strings.HasPrefix(m[1], "initial-cluster:") { // stands there already
			lines = append(lines, m[1])
		}
	}
	if len(lines) < 25 {
		t.Fatalf("only %d examples were found", len(lines))
	}
	list, err := parseFile([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	s := mustLoad(t, nil, nil, "")
	for _, a := range list {
		if a.option.effect != works {
			t.Errorf("%s does nothing", a.from)
		}
		if err := s.set(a); err != nil {
			t.Errorf("%s: %v", a.from, err)
		}
		if a.option.def != "" && a.value != a.option.def && a.option.group != "Security" && !strings.Contains(a.option.def, "0s") {
			t.Errorf("%s: %s is not the default, which is %s", a.from, a.value, a.option.def)
		}
	}
}

// TestStaticPod: kvd takes the flags of the manifest, and all that kubeadm gives
// its etcd.
func TestStaticPod(t *testing.T) {
	var pod struct {
		Spec struct {
			Containers []struct {
				Command []string
			}
		}
	}
	text := strings.NewReplacer("NODE_NAME", "node1", "NODE_IP", "10.0.0.1").Replace(deployed(t, "kubernetes/etcd.yaml"))
	if err := yaml.Unmarshal([]byte(text), &pod); err != nil {
		t.Fatal(err)
	}
	command := pod.Spec.Containers[0].Command
	if command[0] != "kvd" {
		t.Errorf("the pod runs %s", command[0])
	}
	s, err := load(command[1:], nil, nil)
	if err != nil || len(s.notes) > 0 {
		t.Errorf("%v %v", err, s)
	}
	if _, err := load(append(command[1:], kubeadmFlags...), nil, nil); err != nil {
		t.Error(err)
	}
}

// kubeadmFlags are those of kubeadm's own manifest that ours does not have.
var kubeadmFlags = []string{"--feature-gates=InitialCorruptCheck=true", "--snapshot-count=10000"}

// TestUnit: the unit's list of exit codes that a restart does not help is the
// documented one.
func TestUnit(t *testing.T) {
	unit := deployed(t, "systemd/kvd.service")
	want := fmt.Sprintf("RestartPreventExitStatus=%d %d %d %d", exitConfig, exitNotOurs, exitDamaged, exitRemoved)
	for _, line := range []string{want, "Type=notify", "ExecStart=/usr/local/bin/kvd --config-file /etc/keelson/kvd.yaml"} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
}

// TestLinks: what the pages for operators link to exists.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("../../docs/operators/*.md")
	if err != nil || len(pages) < 8 {
		t.Fatal(pages, err)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	for _, page := range append(pages, "../../docs/README.md", "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
