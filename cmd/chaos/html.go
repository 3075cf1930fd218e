package main

import (
	"bufio"
	"errors"
	"os"

	"github.com/keelson-io/keelson/chaos/page"
)

// drawn writes the page of a history.
func drawn(args []string) error {
	f := flags("html")
	out := f.String("o", "chaos.html", "the page")
	var files []string
	for rest := args; ; rest = f.Args()[1:] { // the file may stand before the flags
		if err := f.Parse(rest); err != nil {
			return err
		}
		if f.NArg() == 0 {
			break
		}
		files = append(files, f.Arg(0))
	}
	if len(files) != 1 {
		return errors.New("name one history file")
	}
	h, err := openHistory(files[0])
	if err != nil {
		return err
	}
	file, err := os.Create(*out)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(file)
	return errors.Join(page.Write(w, h), w.Flush(), file.Close())
}
