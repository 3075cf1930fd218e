// Kinds generates the field table of package api/kinds from the Go types of
// Kubernetes, so that the product can read their protobuf without linking them.
//
// generate.go reads struct tags by reflection, markers.go what only comments of
// the source say. The table is text (api/kinds/table.go describes it), written
// compressed. The tests prove that the committed table is what this program
// makes, and that the decoder which reads it agrees with Kubernetes' own on an
// example of every kind. This is a module of its own because the types come
// with many others, whose versions must not meet those of etcd's server.
package main

import (
	"bytes"
	"compress/flate"
	"flag"
	"fmt"
	"os"
)

func main() {
	out := flag.String("o", "", "the `file` to write, compressed; without it the table goes to standard output as text")
	objects := flag.String("objects", "", "the `file` to write the objects of testdata/registry.yaml to, as they are stored")
	flag.Parse()
	text, err := generate()
	if err == nil && *out != "" {
		err = write(*out, text)
	}
	if err == nil && *objects != "" {
		err = writeStored(*objects)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kinds:", err)
		os.Exit(1)
	}
	if *out == "" && *objects == "" {
		fmt.Print(text)
	}
}

func write(name, text string) error {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}
