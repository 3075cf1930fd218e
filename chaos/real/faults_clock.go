//go:build linux

package real

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

var timeFaults = []*Fault{
	{Name: "wall-jump", Row: 37, About: "members' dates jump by an hour or a month, each its own way", Tuned: true, Setup: skewable, Inject: wallJump},
	{Name: "machine-pause", Row: 38, About: "the leader's machine stands still for 10 s", Times: 1, Inject: machinePause},
}

func (m *Member) skewFile() string { return filepath.Join(m.c.dir, m.Name+".skew") }

// skew sets by how much a member's date is off. The file is replaced as a whole:
// the member reads it at any time.
func (m *Member) skew(by time.Duration) error {
	fresh := m.skewFile() + ".new"
	return errors.Join(os.WriteFile(fresh, []byte(by.String()), 0o600), os.Rename(fresh, m.skewFile()))
}

func skewable(r *Run) error {
	for _, m := range r.members() {
		m.env = append(m.env, "KEELSON_CLOCK_SKEW="+m.skewFile())
	}
	return nil
}

// jumps are how far a date jumps at once.
var jumps = []time.Duration{-30 * 24 * time.Hour, -time.Hour, time.Hour, 30 * 24 * time.Hour}

// wallJump lets dates jump under leases that live and end meanwhile, and demands
// that the members have seen it: each tells the date of its last compaction.
func wallJump(r *Run) error {
	for range 3 {
		by := map[*Member]time.Duration{}
		for _, m := range r.members() {
			by[m] = jumps[r.rand.IntN(len(jumps))]
			if err := m.skew(by[m]); err != nil {
				return err
			}
		}
		if err := r.compactSome(); err != nil {
			return err
		}
		for _, m := range r.members() {
			err := within(patience, func() error {
				off := time.Until(m.lastCompaction()) - by[m]
				if off.Abs() > time.Minute {
					return fmt.Errorf("O11: %s believes to be %v off its date of %v", m.Name, off, by[m])
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		r.pause(500*time.Millisecond, 1500*time.Millisecond)
	}
	for _, m := range r.members() {
		if err := m.skew(0); err != nil {
			return err
		}
	}
	return r.serves()
}

// lastCompaction is the date that a member gives its last compaction; zero when it
// does not say.
func (m *Member) lastCompaction() time.Time {
	ctx, cancel := context.WithTimeout(context.Background(), asked)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.clientURL()+"/metrics", nil)
	if err != nil {
		return time.Time{}
	}
	asks := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if m.c.certs != nil {
		asks.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: m.c.certs.client}
	}
	resp, err := asks.Do(req)
	if err != nil {
		return time.Time{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(text)) {
		var at float64
		if n, _ := fmt.Sscanf(line, "etcd_debugging_mvcc_db_compaction_last %g", &at); n == 1 {
			return time.Unix(int64(at), 0)
		}
	}
	return time.Time{}
}

func machinePause(r *Run) error {
	m, err := r.awaitLeader(patience)
	if err != nil {
		return err
	}
	return r.paused(10*time.Second, m)
}
