package server

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/keelson-io/keelson/api"
)

// Levels above error, for those who set them: etcd's names. Nothing is logged
// at them, so that panic and fatal mean "say nothing".
const (
	levelPanic = slog.LevelError + 4
	levelFatal = slog.LevelError + 8
)

// ParseLevel reads one of etcd's level names.
func ParseLevel(name string) (slog.Level, error) {
	switch name {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "dpanic", "panic":
		return levelPanic, nil
	case "fatal":
		return levelFatal, nil
	}
	return 0, fmt.Errorf("unrecognized level: %q (debug, info, warn, error, panic or fatal)", name)
}

// NewLogger writes structured logs to w, one line each: JSON with etcd's keys
// (level, ts, msg), or, for the format "console", text.
func NewLogger(w io.Writer, level slog.Level, format string) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: etcdKeys}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "console":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("unknown log format %q (json or console)", format)
}

// etcdKeys names the built-in attributes as etcd's logs do, so that log
// pipelines made for etcd find them, and prints ids as etcdctl does.
func etcdKeys(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindAny {
		switch id := a.Value.Any().(type) {
		case api.MemberID:
			return slog.String(a.Key, id.String())
		case api.ClusterID:
			return slog.String(a.Key, id.String())
		}
	}
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("ts", a.Value.Time().Format("2006-01-02T15:04:05.000000Z0700"))
	case slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok {
			return slog.String("level", strings.ToLower(level.String()))
		}
	}
	return a
}
