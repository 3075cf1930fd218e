//go:build chaos

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/server"
)

// What package chaos/real sets and no flag may offer. This build is for it alone.
const (
	// skewEnv is a file that says by how much the date is off, as in "-720h". It is
	// read whenever somebody asks for the date.
	skewEnv = "KEELSON_CLOCK_SKEW"
	// logEnv is how many bytes of the log are kept behind the store; its files are a
	// quarter of that.
	logEnv = "KEELSON_LOG_BYTES"
)

func tune(cfg *server.Config) error {
	if file := os.Getenv(skewEnv); file != "" {
		cfg.Clock = skewed{cfg.Clock, file}
	}
	if text := os.Getenv(logEnv); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errUsage, logEnv, err)
		}
		cfg.LogRetentionBytes, cfg.LogSegmentBytes = n, n/4
	}
	return nil
}

// skewed is a clock whose date is off. Its monotonic time is sound.
type skewed struct {
	clock.Clock
	file string
}

func (s skewed) Wall() time.Time {
	now := s.Clock.Wall()
	text, err := os.ReadFile(s.file)
	if err != nil {
		return now // nobody has set it yet
	}
	by, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return now
	}
	return now.Add(by)
}
