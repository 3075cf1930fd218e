package kube

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kubectl runs kubectl against a target, with a home of its own.
type Kubectl struct {
	binary string
	env    []string
	dir    string
}

// Printed is what a command printed and how it ended.
type Printed struct {
	Stdout, Stderr string
	Code           int
}

// NewKubectl makes a home for kubectl below dir.
func NewKubectl(t Target, dir string) (*Kubectl, error) {
	binary, config, err := aimed("kubectl", t, dir)
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), "HOME="+dir, "KUBECONFIG="+config, "KUBECACHEDIR="+filepath.Join(dir, "cache"))
	return &Kubectl{binary: binary, env: env, dir: dir}, nil
}

// aimed finds a program of Kubernetes' and writes the configuration that aims it
// at a target into dir, which it makes.
func aimed(name string, t Target, dir string) (binary, config string, err error) {
	if binary, err = program(name); err != nil {
		return "", "", err
	}
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return "", "", err
	}
	config, err = t.Kubeconfig(dir)
	return binary, config, err
}

// Run runs one command. Its error says that the command could not be run, not
// that it failed.
func (k *Kubectl) Run(ctx context.Context, stdin string, args ...string) (Printed, error) {
	return run(ctx, k.env, k.dir, stdin, k.binary, args...)
}

func run(ctx context.Context, env []string, dir, stdin, binary string, args ...string) (Printed, error) {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Dir = env, dir
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	p := Printed{Stdout: out.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		p.Code, err = exit.ExitCode(), nil
	}
	return p, err
}
