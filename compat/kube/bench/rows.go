package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keelson-io/keelson/compat/bench"
)

// row is a row of the report and how a side is measured for it.
type row struct {
	bench.Row
	// own: the sides are started for this row alone, and it is measured once.
	own     bool
	measure func(ctx context.Context, s *side, d time.Duration) (map[string]float64, error)
}

// listed is how many pods the list rows list.
const listed = 10_000

// Rows are all rows, in the order of the table.
func rows() []row {
	return []row{
		listRow("list", "LIST of 10,000 pods of 4 KB, 2 clients, JSON", 10),
		listRow("list-client-go", "the same as client-go asks: protobuf if there is, gzip", 0,
			"Accept", "application/vnd.kubernetes.protobuf,application/json", "Accept-Encoding", "gzip"),
		fanoutRow("fan-out", "one event to 1,000 watchers, a connection each", 1000),
		fanoutRow("fan-out-shared", "one event to 1,000 watchers, 50 on each of 20 connections", 20),
		latencyRow(), memoryRow(),
	}
}

func listRow(name, title string, goal float64, header ...string) row {
	r := row{Row: bench.Row{Name: name, Title: title, Metrics: []bench.Metric{
		{Name: "lists", Unit: "/CPU s", Higher: true, Goal: goal}, {Name: "rate", Unit: "/s", Higher: true}, {Name: "p50", Unit: "ms"},
	}}}
	r.measure = func(ctx context.Context, s *side, d time.Duration) (map[string]float64, error) {
		s.ready()
		out, err := bench.Drive(ctx, 2, 2*d, s.cpu, func(ctx context.Context, _ int, _ *rand.Rand) error {
			size, err := s.call(ctx, http.MethodGet, "/api/v1/pods", "", nil, header...)
			if err == nil && len(header) == 0 && size < listed*(podBytes-100) {
				err = fmt.Errorf("the list has %d bytes only", size)
			}
			return err
		})
		if err == nil {
			out["lists"] = 1e6 / out["cpu"]
		}
		return out, err
	}
	return r
}

// watchers of the fan-out rows.
const watchers = 1000

// fanoutRow changes a pod that all watchers watch, over so many connections, again and
// again: each change waits until the last of them has heard of the one before.
func fanoutRow(name, title string, connections int) row {
	r := row{Row: bench.Row{Name: name, Title: title, Metrics: []bench.Metric{
		{Name: "cpu", Unit: "µs/event", Goal: 5}, {Name: "last p50", Unit: "ms"},
	}}}
	r.measure = func(ctx context.Context, s *side, d time.Duration) (map[string]float64, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		heard, err := s.listen(ctx, connections)
		if err != nil {
			return nil, err
		}
		var times []float64
		turn := func() error {
			began := time.Now()
			if err := s.touch(ctx, 0); err != nil {
				return err
			}
			select {
			case <-heard:
			case <-time.After(30 * time.Second):
				return fmt.Errorf("not all of %d watchers heard of a change", watchers)
			}
			times = append(times, time.Since(began).Seconds()*1000)
			return nil
		}
		if err := turn(); err != nil { // the first one finds buffers that are not there yet
			return nil, err
		}
		times = nil
		s.ready()
		before := s.cpu()
		for began := time.Now(); time.Since(began) < d; {
			if err := turn(); err != nil {
				return nil, err
			}
		}
		cpu := s.cpu() - before
		slices.Sort(times)
		return map[string]float64{"cpu": float64(cpu.Microseconds()) / float64(len(times)*watchers), "last p50": times[len(times)/2]}, nil
	}
	return r
}

// listen opens the watches, each connection's one after the other: it is there when
// the second one is asked for. What it returns tells of each event that all have heard.
func (s *side) listen(ctx context.Context, connections int) (<-chan struct{}, error) {
	rev, err := s.revision(ctx)
	if err != nil {
		return nil, err
	}
	var events atomic.Int64
	heard := make(chan struct{}, 1)
	return heard, bench.Each(ctx, connections, 8, func(context.Context, int) error {
		client := s.newClient()
		for range watchers / connections {
			body, err := s.watch(ctx, client, rev)
			if err != nil {
				return err
			}
			go func() { // ends with ctx, which ends the body
				defer client.CloseIdleConnections()
				defer body.Close()
				buf := make([]byte, 16<<10)
				for {
					n, err := body.Read(buf)
					if lines := bytes.Count(buf[:n], []byte{'\n'}); lines > 0 && events.Add(int64(lines))%watchers == 0 {
						heard <- struct{}{}
					}
					if err != nil {
						return
					}
				}
			}()
		}
		return nil
	})
}

// latencyRow creates pods, one after the other, and waits for each at a watch.
func latencyRow() row {
	r := row{Row: bench.Row{Name: "create-watch", Title: "a pod created → seen by a watch, one client", Metrics: []bench.Metric{
		{Name: "p50", Unit: "ms"}, {Name: "p99", Unit: "ms"}, {Name: "cpu", Unit: "µs/pod"},
	}}}
	r.measure = func(ctx context.Context, s *side, d time.Duration) (map[string]float64, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		rev, err := s.revision(ctx)
		if err != nil {
			return nil, err
		}
		body, err := s.watch(ctx, s.newClient(), rev)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		seen := make(chan time.Time, 1)
		go func() { // ends with the body
			lines := bufio.NewReaderSize(body, 64<<10)
			for {
				if _, err := lines.ReadSlice('\n'); err != nil {
					return
				}
				seen <- time.Now()
			}
		}()
		s.ready()
		return bench.Drive(ctx, 1, d, s.cpu, func(ctx context.Context, _ int, _ *rand.Rand) error {
			s.turn++
			if err := s.create(ctx, latencyPods+s.turn); err != nil {
				return err
			}
			select {
			case <-seen:
				return nil
			case <-time.After(30 * time.Second):
				return fmt.Errorf("%s was created and not seen", podName(latencyPods+s.turn))
			}
		})
	}
	return r
}

// latencyPods is the first of the pods that the latency row creates.
const latencyPods = 100_000

// memoryRow fills both sides with 50,000 pods and restarts them.
func memoryRow() row {
	const pods = 50_000
	r := row{own: true, Row: bench.Row{Name: "memory", Title: "50,000 pods of 4 KB", Metrics: []bench.Metric{
		{Name: "anonymous", Unit: "MiB", Goal: 5}, {Name: "resident", Unit: "MiB"},
		{Name: "restarted", Unit: "MiB", Goal: 5}, {Name: "ready", Unit: "s"}, {Name: "created", Unit: "/s", Higher: true}, {Name: "cpu", Unit: "µs/pod"},
	}}}
	r.measure = func(ctx context.Context, s *side, _ time.Duration) (map[string]float64, error) {
		s.ready()
		before, began := s.cpu(), time.Now()
		if err := s.fill(ctx, 0, pods); err != nil {
			return nil, err
		}
		took, cpu := time.Since(began), s.cpu()-before
		out := map[string]float64{"created": pods / took.Seconds(), "cpu": float64(cpu.Microseconds()) / pods}
		var err error
		if out["anonymous"], out["resident"], err = s.settled(ctx); err != nil {
			return nil, err
		}
		ready, err := s.restart(ctx)
		if err != nil {
			return nil, err
		}
		out["ready"] = ready.Seconds()
		out["restarted"], _, err = s.settled(ctx)
		return out, err
	}
	return r
}

// settled is what a side holds once its pods have been asked for and its collectors
// have run.
func (s *side) settled(ctx context.Context) (anon, resident float64, err error) {
	if _, err := s.call(ctx, http.MethodGet, "/api/v1/pods?limit=500", "", nil); err != nil {
		return 0, 0, err
	}
	time.Sleep(15 * time.Second)
	return s.memory()
}

// revision is the newest resource version.
func (s *side) revision(ctx context.Context) (string, error) {
	resp, err := s.do(ctx, s.client, http.MethodGet, "/api/v1/pods?limit=1", "", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	_, rest, _ := bytes.Cut(b, []byte(`"resourceVersion":"`))
	rev, _, ok := bytes.Cut(rest, []byte{'"'})
	if !ok {
		return "", fmt.Errorf("a list without a resource version: %.200s", b)
	}
	return string(rev), nil
}

// watch opens a watch of all pods behind rev.
func (s *side) watch(ctx context.Context, client *http.Client, rev string) (io.ReadCloser, error) {
	resp, err := s.do(ctx, client, http.MethodGet, "/api/v1/pods?watch=true&timeoutSeconds=600&resourceVersion="+rev, "", nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// touch changes an annotation of a pod.
func (s *side) touch(ctx context.Context, i int) error {
	s.turn++
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"bench/turn":"%09d"}}}`, s.turn)
	_, err := s.call(ctx, http.MethodPatch, "/api/v1/namespaces/"+namespaceOf(i)+"/pods/"+podName(i), "application/merge-patch+json", patch)
	return err
}
