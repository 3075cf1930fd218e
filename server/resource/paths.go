package resource

import (
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/server/resource/object"
)

// KubernetesVersion is the release whose API the layer follows.
const (
	kubernetesMajor   = "1"
	kubernetesMinor   = "36"
	kubernetesVersion = "v1.36.3"
)

// servePath answers what is no resource: discovery, health, versions.
func (c *call) servePath() error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return notAllowed()
	}
	path := strings.TrimSuffix(c.r.URL.Path, "/")
	switch {
	case slices.Contains(probes, path):
		return c.health(path)
	case path == "/version":
		return c.sendVersion()
	case path == "":
		return c.send(http.StatusOK, object.Encode(object.Object{"paths": object.Anys(c.layer.paths())}))
	case path == "/api" || path == "/apis" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/"):
		return c.discover(path)
	case path == "/openapi/v3" || strings.HasPrefix(path, "/openapi/v3/"):
		return c.openAPI(strings.TrimPrefix(path, "/openapi/v3"))
	}
	return noSuchPage()
}

// probes are the paths of health.
var probes = []string{"/healthz", "/livez", "/readyz", "/healthz/ping", "/livez/ping", "/readyz/ping", "/healthz/etcd", "/livez/etcd", "/readyz/etcd"}

// sendVersion answers in a kube-apiserver's form: people read it, too.
func (c *call) sendVersion() error {
	b, err := json.MarshalIndent(struct {
		Major                 string `json:"major"`
		Minor                 string `json:"minor"`
		EmulationMajor        string `json:"emulationMajor"`
		EmulationMinor        string `json:"emulationMinor"`
		MinCompatibilityMajor string `json:"minCompatibilityMajor"`
		MinCompatibilityMinor string `json:"minCompatibilityMinor"`
		GitVersion            string `json:"gitVersion"`
		GitCommit             string `json:"gitCommit"`
		GitTreeState          string `json:"gitTreeState"`
		BuildDate             string `json:"buildDate"`
		GoVersion             string `json:"goVersion"`
		Compiler              string `json:"compiler"`
		Platform              string `json:"platform"`
	}{
		kubernetesMajor, kubernetesMinor, kubernetesMajor, kubernetesMinor, kubernetesMajor, "35",
		kubernetesVersion + "+keelson", "", "", "1970-01-01T00:00:00Z", runtime.Version(), runtime.Compiler, runtime.GOOS + "/" + runtime.GOARCH,
	}, "", "  ")
	if err != nil {
		return err
	}
	return c.send(http.StatusOK, b)
}

// paths lists what / names.
func (l *Layer) paths() []string {
	out := []string{"/api", "/api/v1", "/apis"}
	for _, gv := range l.catalog.Load().versions() {
		if gv[0] != "" {
			out = append(out, "/apis/"+gv[0]+"/"+gv[1])
		}
	}
	return append(out, "/healthz", "/livez", "/openapi/v3", "/readyz", "/version")
}

// health answers probes. The member is alive when it answers, and ready when it
// can read what the cluster agreed on.
func (c *call) health(path string) error {
	if strings.HasPrefix(path, "/readyz") || strings.HasPrefix(path, "/healthz") {
		ctx, stop := c.layer.withTimeout(c.ctx, freshTimeout)
		defer stop()
		if _, err := c.layer.upToDate(ctx); err != nil {
			return c.sendText(http.StatusInternalServerError, "[-]store failed: "+err.Error()+"\n")
		}
	}
	return c.sendText(http.StatusOK, "ok")
}
