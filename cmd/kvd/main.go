package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/keelson-io/keelson/clock"
	"github.com/keelson-io/keelson/raft/vfs"
	"github.com/keelson-io/keelson/server"
	"github.com/keelson-io/keelson/tracing"
)

func main() {
	coarseTimers()
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is main with its world passed in. It returns the exit code.
func run(args, environ []string, stdout, stderr io.Writer) int {
	s, err := load(args, environ, os.ReadFile)
	switch {
	case err != nil:
	case s.help:
		printHelp(stdout)
		return exitOK
	case s.version:
		printVersion(stdout)
		return exitOK
	default:
		err = serve(s, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "kvd: %v\n", err)
	}
	return exitCode(err)
}

// serve runs the member until a signal or a failure ends it.
func serve(s *settings, stdout, stderr io.Writer) error {
	out := &outputs{stdout: stdout, stderr: stderr}
	defer out.close()
	log, err := openLog(s, out)
	if err == nil {
		s.server.Audit.Logger, err = openAudit(s, out)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	for _, note := range s.notes {
		log.Warn(note)
	}
	cfg := s.server
	cfg.Logger, cfg.Clock, cfg.FS = log, clock.System(), vfs.OS()
	if err := tune(&cfg); err != nil {
		return err
	}
	if cfg.UnsafeNoSync {
		log.Warn("writes are not synced to disk: a machine that loses power loses data")
		cfg.FS = server.WithoutSync(cfg.FS)
	}
	cfg.OnReady = func() {
		if err := notifySystemd(os.Getenv("NOTIFY_SOCKET")); err != nil {
			log.Warn("cannot tell systemd that the member is ready", "error", err)
		}
	}
	if cfg.Seed, err = seed(); err != nil {
		return err
	}
	closeTracer, err := openTracer(s, &cfg)
	if err != nil {
		return err
	}
	defer closeTracer()
	ctx, stop := untilSignal(log)
	defer stop()
	log.Info("starting kvd", "version", release, "name", cfg.Name, "data-dir", cfg.DataDir,
		"listen-client-urls", urlTexts(cfg.ListenClientURLs), "listen-peer-urls", urlTexts(cfg.ListenPeerURLs))
	cfg.Interrupt = ctx
	var rebuilt time.Time
	for {
		err := serveOnce(ctx, cfg)
		now := cfg.Clock.Now()
		if !errors.Is(err, server.ErrRebuild) || !rebuilt.IsZero() && now.Sub(rebuilt) < rebuildPause {
			return err
		}
		rebuilt = now
		log.Warn("starting again", "reason", err)
	}
}

// rebuildPause is how long a rebuilt state must have been good for, or else kvd
// ends: the disk may spoil whatever is written to it.
const rebuildPause = 10 * time.Minute

// serveOnce is one life of the member.
func serveOnce(ctx context.Context, cfg server.Config) (err error) {
	if cfg.Seed, err = seed(); err != nil {
		return err
	}
	srv, err := openMember(cfg)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		cfg.Logger.Info("stopped while waiting for other members")
		return nil
	}
	if err != nil {
		return err
	}
	heapCtx, stop := context.WithCancel(ctx)
	var tending sync.WaitGroup
	tending.Go(func() { tendHeap(heapCtx, cfg.Clock, srv) })
	defer tending.Wait()
	defer stop()
	if err := srv.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	cfg.Logger.Info("stopped")
	return nil
}

// untilSignal returns a context that ends at the first SIGINT or SIGTERM. The
// second one quits on the spot. Its goroutine ends at stop.
func untilSignal(log *slog.Logger) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals, done := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for n := 0; ; n++ {
			select {
			case sig := <-signals:
				if number, ok := sig.(syscall.Signal); ok && n > 0 {
					log.Warn("quitting at once", "signal", sig.String())
					os.Exit(exitSignalled + int(number))
				}
				log.Info("stopping", "signal", sig.String())
				cancel()
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}

// seed draws the number from which this process's pseudo-random sequences start.
func seed() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// outputs are where logs go: the standard ones, and files for appending.
type outputs struct {
	stdout, stderr io.Writer
	files          []*os.File
}

func (o *outputs) open(name string) (io.Writer, error) {
	switch name {
	case "default", "stderr", "systemd/journal": // the journal takes standard error
		return o.stderr, nil
	case "stdout":
		return o.stdout, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	o.files = append(o.files, f)
	return f, nil
}

func (o *outputs) close() {
	for _, f := range o.files {
		f.Close()
	}
}

// openLog opens the log's outputs.
func openLog(s *settings, out *outputs) (*slog.Logger, error) {
	level, err := server.ParseLevel(s.logLevel)
	if err != nil {
		return nil, err
	}
	var writers []io.Writer
	for _, name := range s.logOutputs {
		w, err := out.open(name)
		if err != nil {
			return nil, err
		}
		writers = append(writers, w)
	}
	return server.NewLogger(io.MultiWriter(writers...), level, s.logFormat)
}

// openAudit opens the audit log; nil: there is none.
func openAudit(s *settings, out *outputs) (*slog.Logger, error) {
	if s.auditPath == "" {
		return nil, nil
	}
	w, err := out.open(s.auditPath)
	if err != nil {
		return nil, fmt.Errorf("--audit-log-path: %w", err)
	}
	return server.NewLogger(w, slog.LevelInfo, "json")
}

// flushTraces is how long spans that wait may take at the end.
const flushTraces = 2 * time.Second

// openTracer gives the member a tracer, if there is to be one.
func openTracer(s *settings, cfg *server.Config) (stop func(), err error) {
	if !s.traces {
		return func() {}, nil
	}
	t := s.tracing
	t.Logger = cfg.Logger
	tracer, err := tracing.New(context.Background(), t)
	if err != nil {
		return nil, fmt.Errorf("distributed tracing: %w", err)
	}
	cfg.Tracer = tracer
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTraces)
		defer cancel()
		if err := tracer.Close(ctx); err != nil {
			cfg.Logger.Warn("traces were lost at the end", "error", err)
		}
	}, nil
}

func urlTexts(urls []url.URL) []string {
	texts := make([]string, len(urls))
	for i, u := range urls {
		texts[i] = u.String()
	}
	return texts
}
