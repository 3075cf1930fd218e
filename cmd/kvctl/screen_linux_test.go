package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal: what is written to tty is read from screen.
func openTerminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("this system makes no terminals:", err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

// onScreen is what a command shows on a terminal.
func onScreen(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	screen, tty := openTerminal(t)
	shown := make(chan string)
	go func() {
		b, _ := io.ReadAll(screen) // ends with an error when the last writer has closed
		shown <- string(b)
	}()
	run(args, world{environ: environ, in: strings.NewReader(""), out: tty, errs: tty})
	tty.Close()
	return <-shown
}

// TestTerminal: colours and progress bars appear on a terminal, and nowhere else.
func TestTerminal(t *testing.T) {
	_, at := endpoints(t, plan(t, 1, t.TempDir()))
	must(t, "--endpoints", at, "put", "a", "1")
	must(t, "--endpoints", at, "put", "a", "2")
	escape := regexp.MustCompile(`\x1b`)
	for _, tc := range []struct {
		args []string
		want string // on a terminal
	}{
		{[]string{"diff", "2", "3", "a"}, "\x1b[31m- 1\x1b[0m"},
		{[]string{"endpoint", "health"}, "\x1b[32mhealthy\x1b[0m"},
		{[]string{"get", "a", "--rev", "99"}, "\x1b[31mkvctl:\x1b[0m get"},
		{[]string{"check", "datascale", "--keys", "20"}, "[==============================] 100% 20 of 20 keys"},
	} {
		args := append([]string{"--endpoints", at}, tc.args...)
		if got := onScreen(t, nil, args...); !strings.Contains(got, tc.want) {
			t.Errorf("%s on a terminal: %q", tc.args, got)
		}
		for _, plain := range []string{"NO_COLOR=1", "TERM=dumb"} {
			if got := onScreen(t, []string{plain}, args...); strings.Contains(got, "\x1b[3") {
				t.Errorf("%s with %s: %q", tc.args, plain, got)
			}
		}
		if o := kvctl(t, "", args...); escape.MatchString(o.out + o.errs) {
			t.Errorf("%s into a pipe: %q", tc.args, o.out+o.errs)
		}
	}
}
