package resource

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// maxManager bounds the name of a field manager, as in a kube-apiserver.
const maxManager = 128

// apply answers a server-side apply: what the caller wants of an object, which is
// made if it is not there. Fields of others are not taken without force.
func (c *call) apply(b []byte, dry bool) error {
	name := c.query.Get("fieldManager")
	if name == "" {
		return optionsInvalid("PatchOptions", field.Required(field.NewPath("fieldManager"), "is required for apply patch"))
	}
	config, err := c.configuration(b)
	if err != nil {
		return err
	}
	if err := identify(c.kind, config, c.Namespace); err != nil {
		return err
	}
	object.Default(config, c.Name, "metadata", "name")
	if err := c.checkName(config); err != nil {
		return err
	}
	if c.kind.Status {
		if c.Sub == "status" {
			object.Remove(config, "spec")
		} else {
			delete(config, "status")
		}
	}
	by := manager{name, operationApply, c.kind.APIVersion(), c.Sub}
	res, err := c.change(dry, func(old object.Object) (object.Object, error) {
		if old == nil && object.String(config, "metadata", "uid") != "" {
			return nil, conflict(c.kind, c.Name, "uid mismatch: the provided object specified uid "+object.String(config, "metadata", "uid")+", and no existing object was found")
		}
		return applyConfig(c.kind, old, config, by, truth(c.query.Get("force")), c.layer.clock.Now())
	})
	if err != nil {
		return err
	}
	return c.sendObject(res.code(), res.json)
}

// configuration reads what a client applies.
func (c *call) configuration(b []byte) (object.Object, error) {
	config, _, err := object.Decode(b)
	if err != nil {
		j, err := yaml.YAMLToJSON(b)
		if err != nil {
			return nil, badRequest("error decoding YAML: error converting YAML to JSON: %v", err)
		}
		if config, _, err = object.Decode(j); err != nil && string(j) != "null" {
			var o map[string]any
			return nil, badRequest("error decoding YAML: error unmarshaling JSON: while decoding JSON: %v", json.Unmarshal(j, &o))
		}
	}
	version, kind := object.String(config, "apiVersion"), object.String(config, "kind")
	if version != c.kind.APIVersion() || kind != c.kind.Name {
		if !strings.Contains(version, "/") {
			version = "/" + version
		}
		return nil, badRequest("invalid object type: %s, Kind=%s", version, kind)
	}
	meta := object.Map(config, "metadata")
	if meta["managedFields"] != nil {
		return nil, badRequest("metadata.managedFields must be nil")
	}
	if _, err := c.kind.mergeType().FromUnstructured(plain(config)); err != nil {
		return nil, &Failure{Code: http.StatusInternalServerError, Message: fmt.Sprintf("failed to create typed patch object (%s/%s; %s/%s, Kind=%s): %v",
			object.String(meta, "namespace"), object.String(meta, "name"), c.kind.Group, c.kind.Version, c.kind.Name, err)}
	}
	return config, nil
}

// objectMeta is the layout of all objects' metadata.
func objectMeta() *kinds.Message { return kinds.Lookup("v1", "ConfigMap").Field("metadata").Message }

// manageNew is manage for a new object.
func (c *call) manageNew(o object.Object) error { return c.manage(o, nil, "") }

// manage changes next: it says who wrote which field of it. What is written again
// every few seconds, or soon gone, keeps no account.
func (c *call) manage(next, old object.Object, sub string) error {
	if c.applies() || c.kind.TTL || c.Group == "coordination.k8s.io" {
		return nil
	}
	name := c.query.Get("fieldManager")
	if name == "" {
		name, _, _ = strings.Cut(c.r.UserAgent(), "/")
	}
	if len(name) > maxManager {
		return badRequest("fieldManager: Too long: may not be more than %d bytes", maxManager)
	}
	err := noteUpdate(c.kind, next, old, manager{name, operationUpdate, c.kind.APIVersion(), sub}, c.layer.clock.Now())
	if err != nil && asFailure(err) == nil {
		// What the types do not fit is stored all the same; only the account is missing.
		c.layer.log.Debug("no account of fields", "kind", c.kind.qualified(), "error", err)
		return nil
	}
	return err
}

// applies reports whether the request keeps the account itself.
func (c *call) applies() bool { return c.verb == "patch" && mediaType(c.r) == applyPatchType }
