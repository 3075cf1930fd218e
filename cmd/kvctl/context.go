package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// contexts is the file that names clusters: for each context the global flags
// by their names.
//
//	current: prod
//	contexts:
//	  prod:
//	    endpoints: https://10.0.0.1:2379,https://10.0.0.2:2379
//	    cacert: /etc/kvd/ca.pem
//	    user: root
type contexts struct {
	Current  string                       `json:"current,omitempty"`
	Contexts map[string]map[string]string `json:"contexts,omitempty"`
}

// contextsPath is KVCTL_CONFIG, or kvctl/config.yaml where the system keeps
// configuration.
func contextsPath(env map[string]string) string {
	if p := env["KVCTL_CONFIG"]; p != "" {
		return p
	}
	dir := env["XDG_CONFIG_HOME"]
	if dir == "" {
		if env["HOME"] == "" {
			return ""
		}
		dir = filepath.Join(env["HOME"], ".config")
	}
	return filepath.Join(dir, "kvctl", "config.yaml")
}

// readContexts returns an empty list when there is no file.
func readContexts(path string) (*contexts, error) {
	c := &contexts{}
	b, err := os.ReadFile(path)
	if err != nil {
		if os.IsNotExist(err) || path == "" {
			return c, nil
		}
		return nil, fileFailed("read the contexts", err)
	}
	if err := yaml.UnmarshalStrict(b, c); err != nil {
		return nil, usage("contexts file %s: %v", path, err)
	}
	return c, nil
}

// fromContext gives the flags that neither command line nor environment set the
// values of the context in use.
func (a *app) fromContext(f *pflag.FlagSet, env map[string]string) error {
	path := contextsPath(env)
	c, err := readContexts(path)
	if err != nil {
		return err
	}
	name := a.context
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return nil
	}
	settings, ok := c.Contexts[name]
	if !ok {
		return usage("there is no context %q in %s; `kvctl context list` shows those there are", name, path)
	}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		flag := f.Lookup(key)
		if flag == nil {
			return usage("contexts file %s: context %s: there is no flag --%s", path, name, key)
		}
		if flag.Changed {
			continue
		}
		if err := f.Set(key, settings[key]); err != nil {
			return usage("contexts file %s: context %s: %v", path, name, err)
		}
	}
	return nil
}

func (a *app) contextCommand() *cobra.Command {
	change := func(edit func(c *contexts, args []string, flags *pflag.FlagSet) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			path := contextsPath(environment(a.environ))
			c, err := readContexts(path)
			if err == nil {
				err = edit(c, args, cmd.Root().PersistentFlags())
			}
			if err != nil {
				return err
			}
			return writeContexts(path, c)
		}
	}
	list := verb("list", "Show the contexts; a star marks the one in use", "  kvctl context list", cobra.NoArgs, func(context.Context, []string) error {
		c, err := readContexts(contextsPath(environment(a.environ)))
		if err != nil {
			return err
		}
		return a.show(result{value: c, simple: func(w io.Writer) {
			for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
				mark := " "
				if name == c.Current {
					mark = "*"
				}
				fmt.Fprintf(w, "%s %s  %s\n", mark, name, c.Contexts[name]["endpoints"])
			}
		}})
	})
	use := verb("use NAME", "Take a context for all commands to come", "  kvctl context use prod", cobra.ExactArgs(1), nil)
	use.RunE = change(func(c *contexts, args []string, _ *pflag.FlagSet) error {
		if _, ok := c.Contexts[args[0]]; !ok {
			return usage("there is no context %q; `kvctl context list` shows those there are", args[0])
		}
		c.Current = args[0]
		return nil
	})
	set := verb("set NAME [global flags]", "Make or replace a context of the global flags on this command line",
		"  kvctl context set prod --endpoints https://10.0.0.1:2379 --cacert ca.pem --user root", cobra.ExactArgs(1), nil)
	set.RunE = change(func(c *contexts, args []string, flags *pflag.FlagSet) error {
		settings := map[string]string{}
		for name := range a.given {
			settings[name] = flagText(flags.Lookup(name))
		}
		if c.Contexts == nil {
			c.Contexts = map[string]map[string]string{}
		}
		c.Contexts[args[0]] = settings
		if c.Current == "" {
			c.Current = args[0]
		}
		return nil
	})
	remove := verb("delete NAME", "Remove a context", "  kvctl context delete prod", cobra.ExactArgs(1), nil)
	remove.RunE = change(func(c *contexts, args []string, _ *pflag.FlagSet) error {
		if _, ok := c.Contexts[args[0]]; !ok {
			return usage("there is no context %q", args[0])
		}
		delete(c.Contexts, args[0])
		if c.Current == args[0] {
			c.Current = ""
		}
		return nil
	})
	return family("context", "Named clusters, as kubectl has them", list, use, set, remove)
}

// flagText is a flag's value as the command line writes it.
func flagText(f *pflag.Flag) string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		s := ""
		for i, v := range list.GetSlice() {
			if i > 0 {
				s += ","
			}
			s += v
		}
		return s
	}
	return f.Value.String()
}

// writeContexts replaces the file: it may hold passwords, so nobody else reads it.
func writeContexts(path string, c *contexts) error {
	if path == "" {
		return usage("neither KVCTL_CONFIG nor HOME says where the contexts file is")
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fileFailed("write the contexts", err)
	}
	tmp := path + ".tmp"
	if err = os.WriteFile(tmp, b, 0o600); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fileFailed("write the contexts", err)
	}
	return nil
}
