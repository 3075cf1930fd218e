package resource

import (
	"github.com/keelson-io/keelson/server/resource/object"
)

func (c *call) authorize() error     { return nil }
func (c *call) authorizePath() error { return nil }

func (c *call) apply(b []byte, dry bool) error {
	return unsupportedMedia(applyPatchType, patchTypes(c.kind))
}
func (c *call) manage(o, old object.Object, sub string) {}

func (l *Layer) charge(st *step, k *Kind, namespace, name string, o object.Object) error { return nil }
func (l *Layer) uncharge(st *step, k *Kind, namespace string, o object.Object) (*step, error) {
	return st, nil
}

type Schema struct{}

func (s *Schema) check(o object.Object, path string) []Cause    { return nil }
func (s *Schema) unknown(o object.Object, path string) []string { return nil }
func (s *Schema) fill(o object.Object)                          {}
func (s *Schema) document() object.Object                       { return object.Object{"type": "object"} }

func checkBuiltin(k *Kind, o, old object.Object) []Cause { return nil }
