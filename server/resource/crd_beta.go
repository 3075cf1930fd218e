package resource

import (
	"bytes"

	"github.com/keelson-io/keelson/server/resource/object"
)

// A kube-apiserver stores definitions in their version v1beta1, where what is common to
// all versions of a kind stands beside them.

const (
	definitionBeta = definitionGroup + "/v1beta1"
	definitionHead = 200 // bytes within which a stored definition has named its version
)

// isBetaDefinition reports whether a stored value may be such a definition.
func isBetaDefinition(value []byte) bool {
	return bytes.Contains(value[:min(len(value), definitionHead)], []byte(`"`+definitionBeta+`"`))
}

// modernDefinition makes a definition of v1 of one of v1beta1.
func modernDefinition(value []byte) ([]byte, error) {
	o, _, err := object.Decode(value)
	if err != nil || object.String(o, "apiVersion") != definitionBeta || object.String(o, "kind") != "CustomResourceDefinition" {
		return value, err
	}
	o["apiVersion"] = definitionGroup + "/v1"
	spec := object.Map(o, "spec")
	if spec == nil {
		return object.Encode(o), nil
	}
	if len(object.List(spec, "versions")) == 0 {
		spec["versions"] = []any{object.Object{"name": spec["version"], "served": true, "storage": true}}
	}
	common := map[string]string{"validation": "schema", "subresources": "subresources", "additionalPrinterColumns": "additionalPrinterColumns", "selectableFields": "selectableFields"}
	for _, v := range object.List(spec, "versions") {
		version, ok := v.(object.Object)
		if !ok {
			continue
		}
		for from, to := range common {
			if spec[from] != nil && version[to] == nil {
				version[to] = spec[from]
			}
		}
		version["additionalPrinterColumns"] = modernColumns(object.List(version, "additionalPrinterColumns"))
		if len(object.List(version, "additionalPrinterColumns")) == 0 {
			delete(version, "additionalPrinterColumns")
		}
	}
	for from := range common {
		delete(spec, from)
	}
	delete(spec, "version")
	if spec["preserveUnknownFields"] == false {
		delete(spec, "preserveUnknownFields")
	}
	modernConversion(object.Map(spec, "conversion"))
	return object.Encode(o), nil
}

// modernColumns is what v1 calls the columns' paths.
func modernColumns(columns []any) []any {
	out := make([]any, 0, len(columns))
	for _, v := range columns {
		c, ok := v.(object.Object)
		if !ok {
			continue
		}
		now := object.Object{}
		for name, v := range c {
			if name == "JSONPath" {
				name = "jsonPath"
			}
			now[name] = v
		}
		out = append(out, now)
	}
	return out
}

// modernConversion changes how a webhook is named.
func modernConversion(conversion object.Object) {
	if conversion == nil {
		return
	}
	webhook := object.Object{}
	for from, to := range map[string]string{"webhookClientConfig": "clientConfig", "conversionReviewVersions": "conversionReviewVersions"} {
		if conversion[from] != nil && conversion["strategy"] == "Webhook" {
			webhook[to] = conversion[from]
		}
		delete(conversion, from)
	}
	if len(webhook) > 0 {
		conversion["webhook"] = webhook
	}
}
