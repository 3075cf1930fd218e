package resource

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Content types of patches.
const (
	jsonPatchType      = "application/json-patch+json"
	mergePatchType     = "application/merge-patch+json"
	strategicPatchType = "application/strategic-merge-patch+json"
	applyPatchType     = "application/apply-patch+yaml"
)

// maxPatchOps bounds a JSON patch, as in a kube-apiserver.
const maxPatchOps = 10000

// patch answers PATCH: what is stored and the patch make the object to be stored.
// A lost race repeats it, unless the patch itself names a resource version.
func (c *call) patch() error {
	dry, err := c.dryRun()
	if err != nil {
		return err
	}
	b, err := c.body()
	if err != nil {
		return err
	}
	media := mediaType(c.r)
	if media == applyPatchType {
		return c.apply(b, dry)
	}
	if c.query.Has("force") {
		return optionsInvalid("PatchOptions", field.Forbidden(field.NewPath("force"), "may not be specified for non-apply patch"))
	}
	fn, err := patcher(c.kind, media, b)
	if err != nil {
		return err
	}
	var duplicates []string
	if media != jsonPatchType {
		_, duplicates, _ = object.Decode(b) // what is no JSON was YAML
	}
	res, err := c.change(dry, func(old object.Object) (object.Object, error) {
		if old == nil {
			return nil, notFound(c.kind, c.Name)
		}
		next, err := fn(old)
		if err != nil {
			return nil, err
		}
		next = object.Copy(next) // some of it is old's, some the patch's
		if err := identify(c.kind, next, c.Namespace); err != nil {
			return nil, err
		}
		if err := c.checkName(next); err != nil {
			return nil, err
		}
		err = c.complain(&sent{next, duplicates})
		if err == nil {
			err = c.kind.conform(next)
		}
		if err != nil {
			next, _ = fn(old) // it did well before
			return nil, patchInvalid(next, err)
		}
		return next, nil
	})
	if err != nil {
		return err
	}
	return c.sendObject(res.code(), res.json)
}

// patchInvalid refuses a patch: what it makes is nothing that the kind can be.
func patchInvalid(o object.Object, err error) error {
	why := fmt.Sprintf("Invalid value: %q: %v", object.Encode(o), err)
	return &Failure{Code: http.StatusUnprocessableEntity, Reason: "Invalid", Message: ` "" is invalid: patch: ` + why, Causes: []Cause{{causeInvalid, why, "patch"}}}
}

// patcher returns what a patch does to an object.
func patcher(k *Kind, media string, b []byte) (func(object.Object) (object.Object, error), error) {
	switch media {
	case jsonPatchType:
		return jsonPatcher(b)
	case mergePatchType, strategicPatchType:
	default:
		return nil, notPatch()
	}
	p, err := decodePatch(b)
	if f := asFailure(err); f != nil && media == strategicPatchType {
		f.Message = strings.TrimPrefix(f.Message, "error decoding patch: ")
	}
	if err != nil {
		return nil, err
	}
	if media == mergePatchType {
		return func(o object.Object) (object.Object, error) { return object.Merge(o, p), nil }, nil
	}
	if k.Custom {
		return nil, unsupportedMedia([]string{jsonPatchType, mergePatchType, applyPatchType})
	}
	return func(o object.Object) (object.Object, error) {
		next, err := object.MergeStrategic(o, p, k.Rules)
		if err != nil {
			return nil, badRequest("%v", err)
		}
		return next, nil
	}, nil
}

// notPatch is the answer to a patch of a type that there is none of.
func notPatch() *Failure {
	return &Failure{Code: http.StatusUnsupportedMediaType, Reason: "UnsupportedMediaType", Message: "415: Unsupported Media Type", Generic: true}
}

// decodePatch reads a merge patch; clients may send YAML.
func decodePatch(b []byte) (object.Object, error) {
	p, _, err := object.Decode(b)
	if err == nil {
		return p, nil
	}
	if j, yamlErr := yaml.YAMLToJSON(b); yamlErr == nil {
		if p, _, err = object.Decode(j); err == nil {
			return p, nil
		}
		b = j
	}
	var o map[string]any
	if other := json.Unmarshal(b, &o); other != nil {
		err = other // in the words that clients know
	}
	return nil, badRequest("error decoding patch: %v", err)
}

func jsonPatcher(b []byte) (func(object.Object) (object.Object, error), error) {
	ops, err := jsonpatch.DecodePatch(b)
	if err != nil {
		return nil, badRequest("error decoding patch: %s", strings.ReplaceAll(err.Error(), "jsonpatch.Patch", "[]handlers.jsonPatchOp"))
	}
	if len(ops) > maxPatchOps {
		return nil, tooLong("The allowed maximum operations in a JSON patch is 10000")
	}
	return func(o object.Object) (object.Object, error) {
		patched, err := ops.Apply(object.Encode(o))
		if err != nil {
			return nil, &Failure{Code: http.StatusUnprocessableEntity, Reason: "Invalid", Message: "the server rejected our request due to an error in our request", Generic: true}
		}
		next, _, err := object.Decode(patched)
		if err != nil {
			return nil, badRequest("the patch makes no object: %v", err)
		}
		return next, nil
	}, nil
}
