package bench

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/keelson-io/keelson/compat/cluster"
)

// Metric is one figure of a row.
type Metric struct {
	Name, Unit string
	Higher     bool    // more is better
	Goal       float64 // how many times better than the left store the right one is to be
	Floor      float64 // below this factor the row has failed; 0: 1, never worse
}

// Row is one line of the table: what is done, and the figures it gives.
type Row struct {
	Name, Title string
	Metrics     []Metric
	// Clients make one call after the other: so many do it to a server that answers nothing, too,
	// for the row's ceiling. 0: the row has none.
	Clients int
	// Own says that the row starts clusters of its own, and measures once a round.
	Own bool
	// Apart says that the row is measured only when it is named: it needs many
	// gigabytes of disk.
	Apart bool
	// Setup prepares a store, once.
	Setup func(ctx context.Context, t *target) error
	// Round measures once, and gives the metrics by name.
	Round func(ctx context.Context, t *target, d time.Duration) (map[string]float64, error)
}

// Rows are all rows, in the order of the table.
func Rows() []Row {
	return []Row{
		putRow(), callersRow(), putOneRow(), casRow(), getRow(false), getRow(true),
		listRow(), pageRow(), countRow(), writersRow(),
		overloadRow(noiseLists, "a client that lists 10,000 × 4 KB without end, 4 at a time"),
		overloadRow(noiseWrites, "a client that writes without end, 64 at a time"),
		watchPrefixRow(), watchKeysRow(), millionRow(), bigRow(), lostDiskRow(), failoverRow(),
		flatListRow(), flatCompactRow(), flatSnapshotRow(), defragRow(), growthKeysRow(), growthWatchersRow(),
	}
}

// target is a store that is measured: a running cluster and connections to it.
type target struct {
	system  cluster.System
	cluster *cluster.Cluster
	dir     string
	conns   []*grpc.ClientConn // spread over the members
	leader  *grpc.ClientConn
	state   map[string]any // of rows, between Setup and Round
}

// connections is how many the rows with many clients share.
const connections = 100

func newTarget(ctx context.Context, sys cluster.System, dir string) (*target, error) {
	return newTargetOf(ctx, sys, dir, 3)
}

func newTargetOf(ctx context.Context, sys cluster.System, dir string, members int) (*target, error) {
	return newTargetWith(ctx, sys, cluster.Options{Members: members, Dir: dir, Args: flags})
}

func newTargetWith(ctx context.Context, sys cluster.System, opt cluster.Options) (*target, error) {
	c, err := cluster.Start(ctx, sys, opt)
	t := &target{system: sys, cluster: c, dir: opt.Dir, state: map[string]any{}}
	if err != nil {
		return t, err
	}
	for i := range connections {
		conn, err := c.Members[i%len(c.Members)].Dial()
		if err != nil {
			return t, err
		}
		t.conns = append(t.conns, conn)
	}
	leader, err := c.Leader(ctx)
	if err != nil {
		return t, err
	}
	t.leader, err = leader.Dial()
	return t, err
}

// flags of every measured member: room for a million keys and their history.
var flags = []string{"--quota-backend-bytes=8589934592"}

func (t *target) close() {
	for _, c := range t.conns {
		c.Close()
	}
	if t.leader != nil {
		t.leader.Close()
	}
	if t.cluster != nil {
		t.cluster.Close()
	}
}
