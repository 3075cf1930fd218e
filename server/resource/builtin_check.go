package resource

import (
	"fmt"

	"github.com/keelson-io/keelson/server/resource/object"
)

// checkBuiltin refuses built-in objects that the layer itself has to understand,
// and pods that nobody could run.
func checkBuiltin(k *Kind, o, old object.Object) []Cause {
	switch {
	case k.Group == definitionGroup:
		return checkDefinition(o, old)
	case k.Group == "" && k.Plural == "pods" && old == nil:
		return checkContainers(o)
	case k.Scale == builtinScale:
		return checkReplicas(o)
	}
	return nil
}

// checkReplicas: controllers do not expect fewer than none.
func checkReplicas(o object.Object) []Cause {
	if n, ok := object.Int(o, "spec", "replicas"); ok && n < 0 {
		return []Cause{{causeInvalid, fmt.Sprintf("Invalid value: %d: must be greater than or equal to 0", n), "spec.replicas"}}
	}
	return nil
}

func checkContainers(o object.Object) (causes []Cause) {
	list := object.List(o, "spec", "containers")
	if len(list) == 0 {
		return []Cause{{causeRequired, "Required value", "spec.containers"}}
	}
	for i, v := range list {
		c, _ := v.(object.Object)
		for _, name := range []string{"name", "image"} {
			if object.String(c, name) == "" {
				causes = append(causes, Cause{causeRequired, "Required value", fmt.Sprintf("spec.containers[%d].%s", i, name)})
			}
		}
	}
	return causes
}
