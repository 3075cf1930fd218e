package wire

import (
	"log/slog"
	"time"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/load"
)

// Member is what a guest that is a member is told at its start.
type Member struct {
	Name                       string
	Cluster                    string // as in --initial-cluster
	PeerAddress, ClientAddress string
	Election                   time.Duration
	LogRetention, LogSegment   int64
	CompactionBatch            int
	Log                        slog.Level
}

// Load is what the guest with the clients is told.
type Load struct {
	Meta history.Meta
	Load load.Config
	For  time.Duration // the load goes on before it ends
}
