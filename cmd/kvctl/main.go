package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"
)

func main() {
	os.Exit(run(os.Args[1:], world{environ: os.Environ(), in: os.Stdin, out: os.Stdout, errs: os.Stderr}))
}

// world is what a command finds around it.
type world struct {
	environ []string
	in      io.Reader
	out     io.Writer
	errs    io.Writer
}

// run is main with its world passed in. It returns the exit code.
func run(args []string, w world) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := newApp(w)
	defer a.close()
	root := a.root()
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return exitInterrupted
	}
	return a.report(c.CommandPath(), err)
}

// report tells of a command's failure and returns the exit code.
func (a *app) report(command string, err error) int {
	if err == nil {
		return exitOK
	}
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{code: exitUsage, did: strings.TrimSpace(strings.TrimPrefix(command, "kvctl")), err: err}
	}
	if f.code == exitUsage && f.next == "" {
		f.next = fmt.Sprintf("`%s --help` shows what it takes", command)
	}
	if text := f.Error(); text != "" {
		name := "kvctl:"
		if a.colourful(a.errs) {
			name = "\x1b[" + string(red) + "m" + name + "\x1b[0m"
		}
		fmt.Fprintf(a.errs, "%s %s\n", name, text)
	}
	if f.next != "" {
		fmt.Fprintf(a.errs, "next: %s\n", f.next)
	}
	return f.code
}

// terminal reports whether w is one; only then are colours and progress shown.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ask shows a question and reads one line.
func (a *app) ask(question string) (string, error) {
	fmt.Fprint(a.errs, question)
	line, err := a.lines.ReadString('\n')
	if err != nil && (line == "" || !errors.Is(err, io.EOF)) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// askSecret is ask for what must not be shown.
func (a *app) askSecret(question string) (string, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return a.ask(question)
	}
	fmt.Fprint(a.errs, question)
	b, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.errs)
	return string(b), err
}
