// Command bench measures two stores side by side and prints a table; package
// bench says how. It exits with 1 when a figure is below its floor.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/keelson-io/keelson/compat/bench"
	"github.com/keelson-io/keelson/compat/cluster"
)

func main() {
	var cfg bench.Config
	left := flag.String("left", "etcd", "etcd, kvd, or a binary")
	right := flag.String("right", "kvd", "etcd, kvd, or a binary")
	rows := flag.String("rows", "", "rows to measure, separated by commas (-rows help lists them; default: all)")
	jsonPath := flag.String("json", "bin/bench.json", "where the full report goes; empty: nowhere")
	markdown := flag.String("markdown", "bin/bench.md", "where the table goes as markdown; empty: nowhere")
	svg := flag.String("svg", "bin/bench.svg", "where the plot goes; empty: nowhere")
	from := flag.String("from", "", "measure nothing: print and draw the results in this JSON file, or the timeline in this CSV file")
	update := flag.Bool("update", false, "rows that this run does not measure stay in the JSON file as they are")
	noise := flag.String(strings.TrimPrefix(bench.NoiseCommand, "-"), "", "be a client that makes noise, as in lists@host:port (used by the program itself)")
	empty := flag.String("serve-empty", "", "serve empty replies on this address (used by the program itself)")
	timeline := flag.String("timeline", "", "instead of rows: what writers feel of other work over a time; goes into this CSV file")
	flag.IntVar(&cfg.Rounds, "rounds", 3, "rounds of each store")
	flag.DurationVar(&cfg.Duration, "duration", 4*time.Second, "of a round")
	flag.StringVar(&cfg.Dir, "dir", "", "where data directories go; removed at the end")
	flag.IntVar(&bench.BigKeys, "big-keys", bench.BigKeys, "keys of a big store")
	flag.StringVar(&bench.BigFile, "big-file", "", "a database file with as many, made if it is not there, and kept")
	flag.Parse()
	if *empty != "" {
		exit(bench.ServeEmpty(*empty))
	}
	if *noise != "" {
		exit(bench.MakeNoise(*noise, os.Stdin, os.Stdout))
	}
	if *rows == "help" {
		for _, r := range bench.Rows() {
			fmt.Printf("%-18s %s\n", r.Name, r.Title)
		}
		return
	}
	if *rows != "" {
		cfg.Rows = strings.Split(*rows, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *from != "" {
		exit(again(*from, *markdown, *svg))
	}
	cfg.Command, cfg.Commit = command(), commit()
	if *timeline != "" {
		exit(measureTimeline(ctx, cfg, *left, *right, *timeline, *svg))
	}
	exit(run(ctx, cfg, *left, *right, outputs{*jsonPath, *markdown, *svg, *update}))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// command is this program with the flags that say what is measured, not where the
// results go.
func command() string {
	words := []string{"bench"}
	flag.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "json", "markdown", "svg", "dir", "update", "big-file":
		default:
			words = append(words, "-"+f.Name, f.Value.String())
		}
	})
	return strings.Join(words, " ")
}

// commit is the one that is checked out, and whether anything was changed.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// outputs are the files that a report goes to.
type outputs struct {
	json, markdown, svg string
	update              bool
}

// write writes the report; with update, into what is there.
func (o outputs) write(rep *bench.Report) error {
	if o.update {
		whole, err := read(o.json)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		whole.Update(rep)
		rep = &whole
	}
	return errors.Join(
		write(o.json, rep.JSON),
		write(o.markdown, func(w io.Writer) error { rep.Markdown(w); return nil }),
		write(o.svg, rep.SVG),
	)
}

func read(file string) (rep bench.Report, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return rep, err
	}
	if err := json.Unmarshal(text, &rep); err != nil {
		return rep, fmt.Errorf("%s: %w", file, err)
	}
	return rep, nil
}

// again prints and draws what was measured before.
func again(file, markdown, svg string) error {
	if strings.HasSuffix(file, ".csv") {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		line, err := bench.ReadTimeline(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		return write(svg, line.SVG)
	}
	rep, err := read(file)
	if err != nil {
		return err
	}
	rep.Table(os.Stdout)
	return outputs{markdown: markdown, svg: svg}.write(&rep)
}

func run(ctx context.Context, cfg bench.Config, left, right string, out outputs) error {
	return prepared(cfg, left, right, func(cfg bench.Config) error {
		rep, err := bench.Run(ctx, cfg)
		if rep == nil {
			return err
		}
		rep.Table(os.Stdout)
		err = errors.Join(err, out.write(rep))
		if below := rep.Below(); err == nil && len(below) > 0 {
			err = fmt.Errorf("below the floor: %s", strings.Join(below, "; "))
		}
		return err
	})
}

func measureTimeline(ctx context.Context, cfg bench.Config, left, right, file, svg string) error {
	return prepared(cfg, left, right, func(cfg bench.Config) error {
		line, err := bench.MeasureTimeline(ctx, cfg)
		if err != nil {
			return err
		}
		return errors.Join(write(file, line.CSV), write(svg, line.SVG))
	})
}

// prepared calls f with what a measurement needs: the stores and a directory.
func prepared(cfg bench.Config, left, right string, f func(bench.Config) error) (err error) {
	if cfg.Left, err = cluster.Lookup(left); err != nil {
		return err
	}
	if cfg.Right, err = cluster.Lookup(right); err != nil {
		return err
	}
	if cfg.Dir, err = os.MkdirTemp(cfg.Dir, "bench"); err != nil {
		return err
	}
	defer os.RemoveAll(cfg.Dir)
	cfg.Progress = func(s string) { fmt.Fprintln(os.Stderr, time.Now().Format("15:04:05"), s) }
	cfg.Ceiling = func(ctx context.Context, d time.Duration, clients int) (map[string]float64, error) {
		return bench.Ceiling(ctx, d, clients, "-serve-empty")
	}
	return f(cfg)
}

func write(path string, print func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := print(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
