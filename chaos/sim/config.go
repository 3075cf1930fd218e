package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/workload"
)

// Config is one simulation. Draw makes it from a seed; tests change it.
type Config struct {
	Seed    uint64
	Members int

	// Time. Safety is how long faults come, Calm how long the cluster then has to
	// become whole.
	Safety, Calm  time.Duration
	Tick          time.Duration
	ElectionTicks int
	FaultEvery    time.Duration // mean time between faults; 0: none
	Kinds         []fault.Kind  // of faults, of leaders mostly; none: all
	Drift         int           // per mille by which clocks may differ

	// Load.
	Clients    int
	Special    int           // of them, the last: locks, a registry, lists
	Think      time.Duration // mean pause of a client between operations
	Timeout    time.Duration // after which a client gives an operation up
	Keys       int
	ValueBytes int
	Watchers   int
	Mix        workload.Mix

	// The members' own sizes.
	FlushEvery    time.Duration
	LogRetention  int64
	SegmentBytes  int64
	CompactBatch  int
	Quota         int64 // of the store, in bytes; 0: none that matters
	NetworkDelay  time.Duration
	DiskDelay     time.Duration
	ScheduleDelay time.Duration // of a task that could go on
}

// Draw makes the configuration of a seed: each seed favours other things.
func Draw(seed uint64) Config {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(of ...int) int { return of[r.IntN(len(of))] }
	ms := func(of ...int) time.Duration { return time.Duration(pick(of...)) * time.Millisecond }
	c := Config{
		Seed: seed, Members: pick(1, 3, 3, 3, 3, 3, 3, 5, 5), Safety: 25 * time.Second, Calm: 20 * time.Second,
		Tick: ms(100, 100, 50, 20), ElectionTicks: pick(10, 10, 10, 5, 20), FaultEvery: ms(500, 1000, 2000, 4000), Drift: pick(0, 0, 10, 50),
		Clients: pick(2, 4, 8, 12), Think: ms(20, 50, 100, 200), Timeout: ms(1000, 3000, 5000, 12000),
		Keys: pick(3, 10, 30, 100), ValueBytes: pick(10, 50, 200, 1000, 4000), Watchers: pick(0, 2, 4, 8),
		FlushEvery: ms(50, 300, 1000, 3000), LogRetention: int64(pick(1<<10, 4<<10, 32<<10, 1<<20)), SegmentBytes: int64(pick(8<<10, 16<<10, 64<<10)),
		CompactBatch:  pick(5, 50, 1000),
		NetworkDelay:  time.Duration(pick(50, 200, 1000, 5000)) * time.Microsecond,
		DiskDelay:     time.Duration(pick(20, 200, 1000, 5000)) * time.Microsecond,
		ScheduleDelay: time.Duration(pick(0, 20, 500)) * time.Microsecond,
	}
	some := func(of ...int) int {
		if r.IntN(4) == 0 {
			return 0
		}
		return pick(of...)
	}
	c.Mix = workload.Mix{
		Put: pick(5, 20), Get: pick(2, 10), List: some(1, 5), Stale: some(1, 5), Delete: some(1, 5), Swap: some(5, 20), Count: some(2, 10),
		Txn: some(2, 10), ReadTxn: some(1, 3), Old: some(1, 3), Compact: some(1, 1, 3), Grant: some(1, 2, 6), KeepAlive: some(2, 5, 15), Revoke: some(1), LeasedPut: some(1, 5),
	}
	c.Special = min(c.Clients/2, pick(0, 0, 1, 2, 4))
	if r.IntN(6) == 0 {
		c.leases(pick)
	}
	if c.Special == 0 && r.IntN(3) == 0 {
		c.Quota = int64(pick(32<<10, 100<<10, 400<<10))
	}
	return c
}

// leases makes a load of little but leases, kept alive at all members, on
// leaders that stand still longer than an election takes: what is wrong with the
// leases' time shows only while hundreds of them end.
func (c *Config) leases(pick func(...int) int) {
	c.Tick, c.ElectionTicks, c.Timeout, c.FaultEvery = 50*time.Millisecond, 10, 5*time.Second, 3*time.Second
	c.Kinds = []fault.Kind{fault.Pause, fault.Zombie, fault.HandOver, fault.Isolate}
	c.Clients, c.Think, c.Watchers, c.Special = 12, time.Duration(pick(10, 20))*time.Millisecond, pick(0, 2), 0
	c.Mix = workload.Mix{Put: 1, Get: 1, Grant: pick(5, 10), KeepAlive: 20, LeasedPut: 1}
}

// String prints the configuration on one line.
func (c Config) String() string {
	type plain Config
	return fmt.Sprintf("%+v", plain(c))
}
