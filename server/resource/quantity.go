package resource

import (
	"math/big"

	"github.com/keelson-io/keelson/api/kinds"
	"github.com/keelson-io/keelson/server/resource/object"
)

// parseQuantity reads a quantity of resources, as quotas count them, in any form
// that JSON has it.
func parseQuantity(v any) (*big.Rat, bool) {
	if v == nil {
		return nil, false
	}
	r, _, err := kinds.ParseQuantity(object.Text(v))
	return r, err == nil
}

// formatQuantity writes a quantity in the form of like.
func formatQuantity(r *big.Rat, like string) string {
	_, form, _ := kinds.ParseQuantity(like) // what is none is decimal
	return kinds.FormatQuantity(r, form)
}
