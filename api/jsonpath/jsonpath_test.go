package jsonpath

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
)

const shop = `{"name":"shop","books":[{"title":"A","price":8.95,"tags":["x"]},{"title":"B","price":12,"new":true},{"title":"C","price":8,"isbn":null}],
"labels":{"k8s-app":"20","a.io/b":"15"},"bikes":{"red":{"price":1},"blue":{"price":2}},"nothing":null,"deep":[[1,2],[3]],"quo\"te":"q"}`

func data(t testing.TB) any {
	var v any
	if err := json.Unmarshal([]byte(shop), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTemplates(t *testing.T) {
	for _, tc := range []struct{ template, want string }{
		{"hello", "hello"},
		{"{.name}", "shop"},
		{"a {$.name} b", "a shop b"},
		{"{ .name }", "shop"},
		{"{.absent}{.absent.more[0]}x", "x"},
		{"{.nothing}", "null"},
		{"{['name']} {[\"name\"]}", "shop shop"},
		{`{.labels.a\.io/b} {.labels.k8s-app} {.labels['a.io/b']}`, "15 20 15"},
		{"{.books[0].title}{.books[-1].title}", "AC"},
		{"{.books[*].title}", "A B C"},
		{"{.books[1:].title}|{.books[:2].title}|{.books[0:3:2].title}|{.books[-2:].title}|{.books[1:1]}", "B C|A B|A C|B C|"},
		{"{.books[0,2].title}", "A C"},
		{"{.books[0]['title','price']}", "A 8.95"},
		{"{..title}", "A B C"},
		{"{..price}", "2 1 8.95 12 8"},
		{"{.bikes.*.price}", "2 1"},
		{`{.books[?(@.price<9)].title}`, "A C"},
		{`{.books[?(@.title=="B")].price}`, "12"},
		{`{.books[?(@.title!='B')].title}`, "A C"},
		{`{.books[?(@.new==true)].title}`, "B"},
		{`{.books[?(@.new)].title}`, "B"},
		{`{.books[?(@.price>=12)].title}`, "B"},
		{`{.books[?(@.title==3)].title}`, ""},
		{`{.deep[*][0]}`, "1 3"},
		{`{range .books[*]}{.title}={.price}{"\n"}{end}.`, "A=8.95\nB=12\nC=8\n."},
		{`{range .books[*]}{range .tags[*]}[{@}]{end}{end}`, "[x]"},
		{`{range .absent[*]}x{end}y`, "y"},
		{`{"{"}{'}'}{"\t\""}`, "{}\t\""},
		{`{.books[0].tags}{.bikes.red}`, `["x"]{"price":1}`},
		{`{.books[0].tags[?(@=="x")]}`, "x"},
	} {
		p, err := Parse(tc.template)
		if err != nil {
			t.Errorf("%s: %v", tc.template, err)
			continue
		}
		var out strings.Builder
		if err := p.Execute(&out, data(t)); err != nil || out.String() != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.template, out.String(), err, tc.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for template, want := range map[string]string{
		"{.a": "closing", "{hello}": "identifier hello", "{range .a}x": "without {end}", "{end}": "without {range}", "{.a[}": "closing",
		"{.a[x]}": "index x", "{.a[::0]}": "step", "{.a[?(@.b<>1)]}": "operator", "{....a}": "dots", `{"\q"}`: "text",
		strings.Repeat("x", maxTemplate+1): "most", strings.Repeat("{range .a}", 60) + strings.Repeat("{end}", 60): "deeper", "{.a[?(@.b==c)]}": "identifier c",
	} {
		if _, err := Parse(template); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %s", template, err, want)
		}
	}
	for template, want := range map[string]string{
		"{.books[3]}": "index 3, length 3", "{.books[-4]}": "out of bounds", "{.books[0:9]}": "index 8, length 3", "{.books[2:1]}": "greater", "{.labels[0]}": "not a list",
		"{.name[?(@.a)]}": "not a list", "{.books[?(@.*==1)]}": "one element",
	} {
		p, err := Parse(template)
		if err == nil {
			err = p.Execute(io.Discard, data(t))
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", template, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"{.a[0]}", `{range .books[?(@.price<9)]}{..x}{"\n"}{end}`, "{['a','b'][1:2:3]}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := Parse(s); err == nil {
			_ = p.Execute(io.Discard, data(t)) // an error is fine, a panic is not
		}
	})
}
