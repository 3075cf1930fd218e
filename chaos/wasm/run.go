package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keelson-io/keelson/chaos/fault"
	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/wasm/wire"
	"github.com/keelson-io/keelson/raft/vfs"
)

// Run makes one run and judges it.
func Run(cfg Config, img *image, log io.Writer) (*Result, error) {
	w := newWorld(cfg, img, log)
	w.stats.Faults = map[fault.Kind]int{}
	if err := w.furnish(); err != nil {
		return nil, err
	}
	for _, n := range w.nodes {
		w.boot(n)
	}
	return w.judge(w.run()), nil
}

func address(number, port int) string { return fmt.Sprintf("10.0.0.%d:%d", number, port) }

// furnish makes the nodes: the members, and one with the clients.
func (w *world) furnish() error {
	c := w.cfg
	var cluster []string
	var members []history.Member
	for i := range c.Members {
		name := fmt.Sprint("m", i+1)
		cluster = append(cluster, name+"=http://"+address(i+1, 2380))
		members = append(members, history.Member{Name: name, Endpoint: address(i+1, 2379)})
	}
	for i := range c.Members {
		err := w.node(members[i].Name, "member", wire.Member{
			Name: members[i].Name, Cluster: strings.Join(cluster, ","), PeerAddress: address(i+1, 2380), ClientAddress: address(i+1, 2379),
			Election: c.Election, LogRetention: c.LogRetention, LogSegment: c.LogSegment, CompactionBatch: c.CompactBatch, Log: c.Log,
		})
		if err != nil {
			return err
		}
	}
	meta := history.Meta{
		Ring: "wasm", Seed: c.Seed, Began: time.Unix(0, int64(epoch)).UTC(), Members: members, Election: c.Election, Config: map[string]string{"run": c.String()},
	}
	err := w.node("clients", "load", wire.Load{Meta: meta, Load: c.Load, For: c.Safety + c.Calm})
	w.nodes[c.Members].clients = true
	return err
}

func (w *world) node(name, role string, config any) error {
	b, err := json.Marshal(config)
	number := len(w.nodes) + 1
	w.nodes = append(w.nodes, &node{
		world: w, number: number, name: name, ip: fmt.Sprintf("10.0.0.%d", number), args: []string{"guest", role, string(b)},
		disk: vfs.NewMem(w.rand.Uint64()), listeners: map[string]bool{}, ends: map[uint32]*end{}, accepted: 1,
	})
	return err
}
