//go:build wasip1

package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"

	"github.com/keelson-io/keelson/chaos/wasm/journal"
	"github.com/keelson-io/keelson/chaos/wasm/wire"
	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/server"
)

// member runs a member until it fails.
func member(args []string) error {
	var set wire.Member
	if err := json.Unmarshal([]byte(args[0]), &set); err != nil {
		return err
	}
	cfg := server.DefaultConfig()
	cfg.Name, cfg.DataDir, cfg.InitialCluster = set.Name, "/data", set.Cluster
	peer, client := []url.URL{{Scheme: "http", Host: set.PeerAddress}}, []url.URL{{Scheme: "http", Host: set.ClientAddress}}
	cfg.ListenPeerURLs, cfg.AdvertisePeerURLs = peer, peer
	cfg.ListenClientURLs, cfg.AdvertiseClientURLs = client, client
	cfg.HeartbeatInterval, cfg.ElectionTimeout = set.Election/10, set.Election
	cfg.LogRetentionBytes, cfg.LogSegmentBytes = set.LogRetention, set.LogSegment
	cfg.CompactionBatch = set.CompactionBatch
	cfg.Maintenance.AutoRebuild = true
	cfg.Clock, cfg.FS, cfg.Net = clock.System(), disk{}, newCard()
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: set.Log}))
	cfg.Engine = func(path string) (engine.Engine, error) {
		if err := cfg.FS.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		return journal.Open(cfg.FS, path)
	}
	cfg.Complete()
	for {
		cfg.Seed = rand.Uint64()
		s, err := server.New(cfg)
		if err != nil {
			return err
		}
		if err := s.Run(context.Background()); !errors.Is(err, server.ErrRebuild) {
			return err
		}
	}
}
