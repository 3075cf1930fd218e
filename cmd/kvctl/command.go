package main

import (
	"bufio"
	"context"

	"github.com/spf13/cobra"
)

// app is one run of kvctl.
type app struct {
	world
	lines   *bufio.Reader // of in
	colours bool          // out is a terminal that wants them
	global
	remotes map[string]*remote // the clients made so far, by their endpoints
	// capture, if not nil, takes requests instead of a cluster: those of a
	// transaction are written like commands.
	capture func(request any)
}

func newApp(w world) *app {
	a := &app{world: w, lines: bufio.NewReader(w.in)}
	a.colours = a.colourful(w.out)
	return a
}

// close ends all connections.
func (a *app) close() {
	for _, r := range a.remotes {
		r.Close()
	}
}

// root is the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "kvctl",
		Short:             "Operate a Keelson or etcd cluster",
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		Args:              cobra.NoArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.settle(c.Root().PersistentFlags()) },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errs)
	a.define(root.PersistentFlags())
	a.complete(root)
	root.AddGroup(
		&cobra.Group{ID: groupKeys, Title: "Keys and values:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster and maintenance:"},
		&cobra.Group{ID: groupBackup, Title: "Backup, recovery, migration:"},
		&cobra.Group{ID: groupAccess, Title: "Access:"},
	)
	for group, list := range map[string][]*cobra.Command{
		groupKeys: {
			a.getCommand(), a.putCommand(), a.delCommand(), a.txnCommand(), a.watchCommand(), a.compactCommand(), a.leaseCommand(),
			a.lockCommand(), a.electCommand(), a.diffCommand(), a.historyCommand(), a.mirrorCommand(),
		},
		groupCluster: {
			a.statusCommand(), a.endpointCommand(), a.memberCommand(), a.clusterCommand(), a.alarmCommand(), a.topCommand(), a.defragCommand(),
			a.moveLeaderCommand(), a.downgradeCommand(), a.checkCommand(),
		},
		groupBackup: {a.snapshotCommand(), a.migrateCommand()},
		groupAccess: {a.authCommand(), a.userCommand(), a.roleCommand()},
		"":          {a.versionCommand(), a.contextCommand()},
	} {
		for _, c := range list {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	return root
}

// The groups of commands in the help.
const (
	groupKeys    = "keys"
	groupCluster = "cluster"
	groupBackup  = "backup"
	groupAccess  = "access"
)

// verb makes a command. lines are its short text and, indented, its example.
func verb(use, short, example string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: args,
		RunE: func(c *cobra.Command, args []string) error { return run(c.Context(), args) },
	}
}

// family makes a command that only has sub-commands.
func family(use, short string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return usage("%s needs a sub-command", c.CommandPath())
	}}
	c.AddCommand(sub...)
	return c
}

// brief is how long a short command may take.
func (a *app) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.commandTimeout)
}

// call does one short thing with the cluster. did says what, for errors.
func (a *app) call(ctx context.Context, did string, do func(ctx context.Context, r *remote) error) error {
	return a.on(ctx, a.endpoints, did, do)
}

// on does one short thing with some endpoints and no others.
func (a *app) on(ctx context.Context, endpoints []string, did string, do func(ctx context.Context, r *remote) error) error {
	ctx, cancel := a.brief(ctx)
	defer cancel()
	r, err := a.at(endpoints...)
	if err == nil {
		err = do(ctx, r)
	}
	return classify(did, err, endpoints...)
}
