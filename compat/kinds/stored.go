package main

import (
	"bytes"
	_ "embed" // for the objects
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"github.com/keelson-io/keelson/api/kinds"
)

//go:embed testdata/registry.yaml
var registry string

// stored gives the objects of testdata/registry.yaml as a kube-apiserver stores
// them: a line for each, of its key and its value in base64.
func stored() (string, error) {
	s, err := scheme()
	if err != nil {
		return "", err
	}
	codec := protobuf.NewSerializer(s, s)
	var lines []string
	for _, doc := range strings.Split(registry, "\n---\n") {
		text, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			return "", err
		}
		o, err := kinds.Decode(text)
		if err != nil {
			return "", err
		}
		v, value := kinds.View(o.Fields), bytes.Clone(text)
		group, version := kinds.SplitAPIVersion(o.APIVersion)
		r := kinds.ByKind(o.APIVersion, o.Kind)
		if r == nil { // a custom resource
			r = &kinds.Resource{Prefix: group + "/" + strings.ToLower(o.Kind) + "s", Namespaced: true}
		} else if r.Prefix == r.Name || strings.HasPrefix(r.Prefix, "services/") || r.Prefix == "minions" {
			gvk := schema.GroupVersionKind{Group: group, Version: version, Kind: o.Kind}
			typed, err := s.New(gvk)
			if err != nil {
				return "", err
			}
			if err := json.Unmarshal(text, typed); err != nil {
				return "", fmt.Errorf("%s: %w", v.Text("metadata.name"), err)
			}
			typed.GetObjectKind().SetGroupVersionKind(gvk)
			var b bytes.Buffer
			if err := codec.Encode(typed, &b); err != nil {
				return "", err
			}
			value = b.Bytes()
		}
		key := r.Key("/registry", v.Text("metadata.namespace"), v.Text("metadata.name"))
		lines = append(lines, key+" "+base64.StdEncoding.EncodeToString(value)+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, ""), nil
}

func writeStored(name string) error {
	text, err := stored()
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(text), 0o644)
}
