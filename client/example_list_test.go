package client_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// TestEveryTypeHasAnExample: godoc shows a runnable example for each exported
// type; one is run when it says what it prints.
func TestEveryTypeHasAnExample(t *testing.T) {
	fset := token.NewFileSet()
	var files []*ast.File
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".go") {
			f, err := parser.ParseFile(fset, e.Name(), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	pkg, err := doc.NewFromFiles(fset, files, "github.com/keelson-io/keelson/client")
	if err != nil {
		t.Fatal(err)
	}
	if len(pkg.Types) < 35 {
		t.Fatalf("found %d types only", len(pkg.Types))
	}
	for _, typ := range pkg.Types {
		run := 0
		for _, ex := range typ.Examples {
			if ex.Output != "" || ex.EmptyOutput {
				run++
			}
		}
		if run == 0 {
			t.Errorf("%s has %d examples, none of which is run", typ.Name, len(typ.Examples))
		}
	}
}
