package main

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/client-go/util/jsonpath"

	ours "github.com/keelson-io/keelson/api/jsonpath"
)

// TestJSONPath compares our templates with kubectl's own, with its default of
// allowing missing keys.
func TestJSONPath(t *testing.T) {
	var data any
	err := json.Unmarshal([]byte(`{"kind":"List","items":[
		{"metadata":{"name":"a","labels":{"app.io/x":"1","t-1":"y"}},"spec":{"n":3,"f":1.5,"on":true,"l":["p","q","r","s"]},"status":{"c":[{"type":"Ready","status":"True"},{"type":"Old","status":"False"}]}},
		{"metadata":{"name":"b"},"spec":{"n":7,"f":2,"l":[]},"status":null}]}`), &data)
	if err != nil {
		t.Fatal(err)
	}
	for _, template := range []string{
		"plain", "{.kind}", "{$.kind} {@.kind}", "{.items[*].metadata.name}", "{.items[0].spec.l[1:3]}", "{.items[0].spec.l[-1]}", "{.items[0].spec.l[-2:]}",
		"{.items[0].spec.l[0:4:2]}", "{.items[0].spec.l[:-1]}", "{.items[0].spec.l[0,3]}", "{.items[0].spec.l}", "{.items[1].spec.l[1:1]}", "{.items[1].status}",
		"{.items[*].metadata['name', 'uid']}", "{.items[0]['metadata']['name']}", `{.items[0].metadata.labels.app\.io/x}`, `{.items[0].metadata.labels['app\.io/x']}`,
		`{.items[0].metadata.labels.t-1}`, "{..name}", "{.items..type}", "{.items[*].none}x", "{.items[*].none.more}x", "{.items[0].spec.n} {.items[0].spec.f} {.items[0].spec.on}",
		`{.items[?(@.metadata.name=="b")].spec.n}`, `{.items[?(@.spec.n>3.0)].metadata.name}`, `{.items[?(@.spec.n<=7.0)].metadata.name}`, `{.items[?(@.spec.on)].metadata.name}`,
		`{.items[?(@.spec.on==true)].metadata.name}`, `{.items[0].status.c[?(@.type=='Ready')].status}`, `{.items[0].status.c[?(@.type!="Ready")].status}`,
		`{range .items[*]}{.metadata.name}{"\t"}{.spec.n}{"\n"}{end}`, `{range .items[*]}[{range .spec.l[*]}{@},{end}]{end}done`, `{range .none[*]}x{end}y`,
		`{.items[0].spec.l[9]}`, `{.items[0].spec.l[3:1]}`, `{.kind[0]}`, `{.items[?(@.metadata.name<>1)]}`, "{.kind", "{bad}", `{end}`, `{"{"}{'a b'}`, `{.items[0].metadata.*.t-1}`,
		`{.items[0].spec.l[?(@=="q")]}`, `{.items[*]['metadata.name', 'spec.n']}`, "{ .kind }", "{.items[0].spec.l[*]}", `{.items[0].status.c[*].type}`,
	} {
		var theirs, mine strings.Builder
		p := jsonpath.New("t").AllowMissingKeys(true)
		theirErr := p.Parse(template)
		if theirErr == nil {
			theirErr = p.Execute(&theirs, data)
		}
		q, err := ours.Parse(template)
		if err == nil {
			err = q.Execute(&mine, data)
		}
		if (err == nil) != (theirErr == nil) || err == nil && mine.String() != theirs.String() {
			t.Errorf("%s\nours   %q %v\ntheirs %q %v", template, mine.String(), err, theirs.String(), theirErr)
		}
	}
}
