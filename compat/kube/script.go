package kube

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/keelson-io/keelson/compat/ctl"
)

// Step is one command of a script, a line of its file. Its words are kubectl's
// arguments, quoted as in a shell, after
//
//	NAME=VALUE   an environment variable
//	@USER        whose token is sent
//	&            it runs beside what follows
//
// The line "until TEXT" waits until the command that runs beside has printed
// TEXT and the line's end, and interrupts it.
type Step struct {
	Line    string
	Section string // the last comment above it

	words  []string
	env    []string
	user   string
	beside bool
	until  string
}

// ReadScript reads a script.
func ReadScript(path string) ([]Step, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Step
	section := ""
	for scan := bufio.NewScanner(f); scan.Scan(); err = scan.Err() {
		line := strings.TrimSpace(scan.Text())
		if text, ok := strings.CutPrefix(line, "#"); ok {
			section = strings.TrimSpace(text)
		}
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseStep(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		s.Section = section
		out = append(out, s)
	}
	return out, err
}

func parseStep(line string) (Step, error) {
	s := Step{Line: line}
	if text, ok := strings.CutPrefix(line, "until "); ok {
		s.until = text
		return s, nil
	}
	words, err := split(line)
	for len(words) > 0 {
		w := words[0]
		name, _, assigns := strings.Cut(w, "=")
		switch {
		case w == "&":
			s.beside = true
		case w[0] == '@':
			s.user = w[1:]
		case assigns && name == strings.ToUpper(name):
			s.env = append(s.env, w)
		default:
			s.words = words
			return s, err
		}
		words = words[1:]
	}
	return s, errors.Join(err, errors.New("no command"))
}

// split separates words at spaces; single quotes keep what is between them.
func split(line string) (words []string, err error) {
	var word strings.Builder
	started, quoted := false, false
	for _, c := range line {
		switch {
		case c == '\'':
			started, quoted = true, !quoted
		case c == ' ' && !quoted:
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			started = true
			word.WriteRune(c)
		}
	}
	if quoted {
		err = errors.New("a quote is open")
	}
	if started {
		words = append(words, word.String())
	}
	return words, err
}

// stepLimit ends a step that hangs, which is then a difference.
const stepLimit = time.Minute

// Shell runs a script's steps against one target.
type Shell struct {
	kubectl *Kubectl
	beside  *exec.Cmd // runs beside, with what it printed
	out     *ctl.Buffer
	end     func()
}

// NewShell makes a shell; files are found in the directory work.
func NewShell(t Target, dir, work string) (*Shell, error) {
	k, err := NewKubectl(t, dir)
	if err != nil {
		return nil, err
	}
	k.dir, err = filepath.Abs(work)
	return &Shell{kubectl: k}, err
}

// Run gives all that a step printed, and how it ended.
func (sh *Shell) Run(ctx context.Context, s Step) string {
	if s.until != "" {
		return sh.await(ctx, s.until)
	}
	args := s.words
	if s.user != "" {
		args = append([]string{"--token", TokenOf(s.user)}, args...)
	}
	env := append(append([]string(nil), sh.kubectl.env...), s.env...)
	if s.beside {
		return sh.start(ctx, env, args)
	}
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	p, err := run(ctx, env, sh.kubectl.dir, "", sh.kubectl.binary, args...)
	text := p.Stdout
	if p.Stderr != "" {
		text += "(stderr)\n" + p.Stderr
	}
	switch {
	case ctx.Err() != nil:
		text += "(did not end)"
	case err != nil:
		text += err.Error()
	case p.Code != 0:
		text += fmt.Sprintf("(exit code %d)", p.Code)
	}
	return text
}

// start runs a command beside the next ones, until await or Close.
func (sh *Shell) start(ctx context.Context, env, args []string) string {
	sh.Close()
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, sh.kubectl.binary, args...)
	cmd.Env, cmd.Dir = env, sh.kubectl.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	sh.out = &ctl.Buffer{}
	cmd.Stdout, cmd.Stderr = sh.out, sh.out
	if err := cmd.Start(); err != nil {
		cancel()
		return err.Error()
	}
	sh.beside, sh.end = cmd, cancel
	return ""
}

func (sh *Shell) await(ctx context.Context, text string) string {
	if sh.beside == nil {
		return "(nothing runs beside)"
	}
	limited, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	sh.out.WaitFor(limited, text)
	sh.Close()
	if limited.Err() != nil {
		return sh.out.String() + "(did not print it)"
	}
	return sh.out.String()
}

// Close ends what runs beside.
func (sh *Shell) Close() {
	if sh.beside != nil {
		sh.end()
		_ = sh.beside.Wait() // it was interrupted
		sh.beside = nil
	}
}
