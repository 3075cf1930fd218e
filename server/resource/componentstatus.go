package resource

import (
	"net/http"

	"github.com/keelson-io/keelson/server/resource/object"
)

// A kube-apiserver asks a scheduler and a controller manager on its own machine, and the
// servers of its store, how they are, and answers as ComponentStatus objects. The layer asks
// nobody: of the components of a control plane it speaks for the one that it is part of.

// storeComponent is the store's name in a kube-apiserver that has one address of it.
const storeComponent = "etcd-0"

// components answers GET of the components, or of one: by its barrier the store is well.
func (c *call) components() error {
	if c.verb == "get" && c.Name != storeComponent {
		return notFound(&Kind{Plural: c.kind.Singular}, c.Name)
	}
	if err := c.form.fits(c.verb == "list"); err != nil {
		return err
	}
	store, err := c.storeStatus()
	if err != nil {
		return err
	}
	if c.verb == "get" {
		return c.sendObject(http.StatusOK, store.json)
	}
	o, err := listOptionsOf(c.query)
	if err != nil {
		return err
	}
	sel, err := selectionOf(c.kind, "", o.labels, o.fields)
	if err != nil {
		return err
	}
	return c.sendList(cut(sel, []*entry{store}, 0, 0))
}

// storeStatus is the store as a component.
func (c *call) storeStatus() (e *entry, err error) {
	condition := object.Object{"type": "Healthy", "status": "True", "message": "ok"}
	ctx, stop := c.layer.withTimeout(c.ctx, freshTimeout)
	defer stop()
	if err := c.layer.store.Barrier(ctx); err != nil {
		condition = object.Object{"type": "Healthy", "status": "False", "error": err.Error()}
	}
	e = &entry{key: storeComponent, json: object.Encode(object.Object{
		"apiVersion": c.kind.APIVersion(), "kind": c.kind.Name, "metadata": object.Object{"name": storeComponent}, "conditions": []any{condition}})}
	e.meta, err = object.ParseMeta(e.json)
	return e, err
}
