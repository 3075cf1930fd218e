package resource

import (
	"github.com/keelson-io/keelson/server/resource/object"
)

func (c *call) apply(b []byte, dry bool) error {
	return unsupportedMedia(applyPatchType, patchTypes(c.kind))
}
func (c *call) manage(o, old object.Object, sub string) {}

func checkBuiltin(k *Kind, o, old object.Object) []Cause {
	if k.Group == definitionGroup {
		return checkDefinition(o, old)
	}
	return nil
}
