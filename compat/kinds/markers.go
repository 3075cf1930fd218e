package main

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
)

// markers are what comments say of fields, by package, type and field, as the
// table has it: how lists and maps are merged when several managers own parts.
type markers map[string]map[string]map[string]string

// ofType is where the marker of a type itself stands: it counts for fields that hold one.
const ofType = ""

// of returns the markers of a type's fields.
func (m markers) of(typ reflect.Type) (map[string]string, error) {
	pkg := typ.PkgPath()
	if m[pkg] == nil {
		types, err := readMarkers(pkg)
		if err != nil {
			return nil, fmt.Errorf("source of %s: %w", pkg, err)
		}
		m[pkg] = types
	}
	return m[pkg][typ.Name()], nil
}

func readMarkers(pkg string) (map[string]map[string]string, error) {
	p, err := build.Import(pkg, ".", build.FindOnly)
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("%w: %s", fs.ErrNotExist, p.Dir)
	}
	out := map[string]map[string]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || strings.Contains(filepath.Base(name), "generated") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok {
				return true
			}
			for _, spec := range decl.Specs {
				if spec, ok := spec.(*ast.TypeSpec); ok {
					if s, ok := spec.Type.(*ast.StructType); ok {
						out[spec.Name.Name] = fieldMarkers(s)
						out[spec.Name.Name][ofType] = mark(decl.Doc)
					}
				}
			}
			return true
		})
	}
	return out, nil
}

func fieldMarkers(s *ast.StructType) map[string]string {
	out := map[string]string{}
	for _, f := range s.Fields.List {
		if mark := mark(f.Doc); mark != "" {
			for _, name := range f.Names {
				out[name.Name] = mark
			}
		}
	}
	return out
}

// mark is what a comment says of its field: list=map:KEY,KEY, list=set,
// list=atomic, map=atomic, struct=atomic, or nothing.
func mark(doc *ast.CommentGroup) string {
	if doc == nil {
		return ""
	}
	var parts, keys []string
	for _, c := range doc.List {
		text := strings.TrimSpace(strings.TrimPrefix(c.Text, "//"))
		if key, ok := strings.CutPrefix(text, "+listMapKey="); ok {
			keys = append(keys, strings.Trim(key, `"`))
		}
		for _, shape := range []string{"list", "map", "struct"} {
			if v, ok := strings.CutPrefix(text, "+"+shape+"Type="); ok {
				parts = append(parts, shape+"="+strings.Trim(v, `"`))
			}
		}
	}
	out := strings.Join(parts, " ")
	if len(keys) > 0 {
		out = strings.Replace(out, "list=map", "list=map:"+strings.Join(keys, ","), 1)
	}
	return out
}
