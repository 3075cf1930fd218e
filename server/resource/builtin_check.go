package resource

import (
	"github.com/keelson-io/keelson/server/resource/object"
)

// checkBuiltin refuses built-in objects that the layer itself has to understand.
func checkBuiltin(k *Kind, o, old object.Object) []Cause {
	if k.Group == definitionGroup {
		return checkDefinition(o, old)
	}
	return nil
}
