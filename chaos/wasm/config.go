package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/keelson-io/keelson/chaos/load"
)

// Config is one run. Draw makes it from a seed.
type Config struct {
	Seed    uint64
	Planted string // the bug that the guest was built with, and that is on
	Log     slog.Level

	Members      int
	Safety, Calm time.Duration // how long faults come, and how long the cluster then has
	FaultEvery   time.Duration // mean time between faults

	Election      time.Duration
	LogRetention  int64
	LogSegment    int64
	CompactBatch  int
	NetworkDelay  time.Duration
	DiskDelay     time.Duration // of a sync
	ScheduleDelay time.Duration // of a process that has something to do
	Load          load.Config
}

// Draw makes the configuration of a seed: each seed favours other things.
func Draw(seed uint64) Config {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(of ...int) int { return of[r.IntN(len(of))] }
	c := Config{
		Seed: seed, Log: slog.LevelWarn, Members: 3, Safety: 12 * time.Second, Calm: 8 * time.Second,
		FaultEvery:   time.Duration(pick(700, 1500, 3000)) * time.Millisecond,
		Election:     time.Duration(pick(300, 500, 1000)) * time.Millisecond,
		LogRetention: int64(pick(4<<10, 32<<10, 1<<20)), LogSegment: int64(pick(16<<10, 64<<10)),
		CompactBatch:  pick(5, 50, 1000),
		NetworkDelay:  time.Duration(pick(50, 200, 1000, 5000)) * time.Microsecond,
		DiskDelay:     time.Duration(pick(50, 200, 1000, 5000)) * time.Microsecond,
		ScheduleDelay: time.Duration(pick(0, 20, 500)) * time.Microsecond,
		Load:          load.Default(seed),
	}
	l := &c.Load
	l.Mixed, l.Lists, l.Locks, l.Registry = pick(2, 4, 6), pick(0, 1), pick(0, 1), pick(0, 1)
	l.Keys, l.ValueBytes, l.Watchers = pick(3, 10, 60), pick(10, 100, 1000), pick(1, 3, 5)
	l.Pause, l.Timeout = time.Duration(pick(20, 50, 100))*time.Millisecond, time.Duration(pick(1, 3, 5))*time.Second
	l.ProbeEvery, l.CompactEvery, l.KeepRevisions = 200*time.Millisecond, time.Duration(pick(300, 1000, 3000))*time.Millisecond, int64(pick(5, 50, 500))
	return c
}

// limit is when a run must be over: longer than the clients wait for anything.
func (c Config) limit() time.Duration { return c.Safety + c.Calm + 3*time.Minute }

// String prints the configuration on one line.
func (c Config) String() string {
	type plain Config
	return fmt.Sprintf("%+v", plain(c))
}
