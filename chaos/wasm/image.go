package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/keelson-io/keelson/chaos/wasm/wire"
)

// image is the guest, compiled: instances are made of it.
type image struct {
	runtime wazero.Runtime
	module  wazero.CompiledModule
}

// buildGuest builds the guest into dir, with the planted bugs if there is to be one.
func buildGuest(dir string, planted bool) (string, error) {
	out := filepath.Join(dir, "guest.wasm")
	args := []string{"build", "-ldflags=-s -w", "-o", out}
	if planted {
		args = append(args, "-tags=planted")
	}
	cmd := exec.Command("go", append(args, "github.com/keelson-io/keelson/chaos/wasm/guest")...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the guest: %w", err)
	}
	return out, nil
}

// compile makes an image of the file. What it compiles to is kept in a folder: it
// takes longer than a run.
func compile(ctx context.Context, file, cache string) (*image, error) {
	kept, err := wazero.NewCompilationCacheWithDir(cache)
	if err != nil {
		return nil, err
	}
	i := &image{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCompilationCache(kept))}
	code, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if i.module, err = i.runtime.CompileModule(ctx, code); err != nil {
		return nil, err
	}
	return i, i.serve(ctx)
}

// serve makes the modules that the guest imports. What it never calls in earnest is
// answered as by a system that lacks it.
func (i *image) serve(ctx context.Context) error {
	builders := map[string]wazero.HostModuleBuilder{}
	for _, f := range i.module.ImportedFunctions() {
		module, name, _ := f.Import()
		if builders[module] == nil {
			builders[module] = i.runtime.NewHostModuleBuilder(module)
		}
		serve := calls[name]
		if module == wire.Module {
			serve = (*machine).call
		} else if serve == nil {
			serve = (*machine).lacks
		}
		builders[module].NewFunctionBuilder().WithGoModuleFunction(served(serve), f.ParamTypes(), f.ResultTypes()).Export(name)
	}
	for _, b := range builders {
		if _, err := b.Instantiate(ctx); err != nil {
			return err
		}
	}
	return nil
}

// served is a host function: it finds the machine that calls it in its context.
type served func(m *machine, stack []uint64)

func (f served) Call(ctx context.Context, mod api.Module, stack []uint64) {
	m := ctx.Value(machineKey{}).(*machine)
	m.memory = mod.Memory()
	for i, v := range stack {
		stack[i] = uint64(uint32(v)) // above, a 32-bit word has anything; the one of 64 bits is not looked at
	}
	f(m, stack)
}

type machineKey struct{}
