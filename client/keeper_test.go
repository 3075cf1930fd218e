package client

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// held is a keeper without a connection: the test is its sender and its member.
// It keeps one lease, id 7, of nine seconds, granted by a request sent when the
// bubble's time began; the grant's answer took two of them.
type held struct {
	*keeper
	began time.Time
	stop  func()
	told  chan loss
}

// loss is a report: how long after the beginning it came, and why.
type loss struct {
	at  time.Duration
	why error
}

const heldFor = 9 * time.Second

func hold(t *testing.T) *held {
	t.Helper()
	c := &core{}
	h := &held{keeper: &c.keeper, began: time.Now(), told: make(chan loss, 9)}
	h.core, h.kick = c, make(chan struct{}, 1)
	h.mu.running = true // nobody connects
	time.Sleep(2 * time.Second)
	var err error
	h.stop, err = h.keep(Lease{ID: 7, Granted: heldFor}, h.began, func(why error) { h.told <- loss{time.Since(h.began), why} })
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// until sleeps until so long after the beginning.
func (h *held) until(at time.Duration) {
	time.Sleep(at - time.Since(h.began))
	synctest.Wait()
}

// endsAt checks that the lease counts as lost at a time exactly, once.
func (h *held) endsAt(t *testing.T, at time.Duration) {
	t.Helper()
	h.until(at - 1)
	if len(h.told) != 0 {
		t.Fatalf("lost at %v, want %v", <-h.told, at)
	}
	h.until(at)
	h.lost(t, at)
	h.until(at + 10*heldFor)
	if len(h.told) != 0 {
		t.Fatal("reported twice")
	}
}

// lost checks the report.
func (h *held) lost(t *testing.T, at time.Duration) {
	t.Helper()
	if len(h.told) != 1 {
		t.Fatalf("%d reports", len(h.told))
	}
	if l := <-h.told; l.at != at || !errors.Is(l.why, ErrLeaseLost) {
		t.Fatalf("lost at %v by %v; want %v", l.at, l.why, at)
	}
}

// renew sends what is due and has the member answer after a while.
func (h *held) renew(t *testing.T, after time.Duration, ttl int64) {
	t.Helper()
	if due := h.takeDue(time.Now()); len(due) != 1 || due[0] != 7 {
		t.Fatalf("due after %v: %v", time.Since(h.began), due)
	}
	if again := h.takeDue(time.Now()); len(again) != 0 {
		t.Fatal("renewed again before the answer")
	}
	h.until(time.Since(h.began) + after)
	h.renewed(&pb.LeaseKeepAliveResponse{ID: 7, TTL: ttl})
	synctest.Wait()
}

// TestLeaseIsLostOnTime: by the process's clock a lease ends when its time is up
// since the last answered renewal was sent; not later, whatever the answers took,
// and not earlier.
func TestLeaseIsLostOnTime(t *testing.T) {
	for name, run := range map[string]func(t *testing.T, h *held){
		"never renewed": func(t *testing.T, h *held) { h.endsAt(t, heldFor) },
		"renewed, the answer late": func(t *testing.T, h *held) {
			h.until(3 * time.Second)
			h.renew(t, 5*time.Second, 9)
			h.endsAt(t, 3*time.Second+heldFor)
		},
		"renewed for another time": func(t *testing.T, h *held) {
			h.until(3 * time.Second)
			h.renew(t, 0, 30)
			h.endsAt(t, 33*time.Second)
		},
		"renewed twice": func(t *testing.T, h *held) {
			h.until(3 * time.Second)
			h.renew(t, time.Second, 9)
			h.until(6 * time.Second)
			h.renew(t, time.Second, 9)
			h.endsAt(t, 6*time.Second+heldFor)
		},
		"the answer never comes": func(t *testing.T, h *held) {
			h.until(3 * time.Second)
			h.takeDue(time.Now())
			h.endsAt(t, heldFor)
		},
		"an answer to nothing": func(t *testing.T, h *held) {
			h.until(4 * time.Second)
			h.renewed(&pb.LeaseKeepAliveResponse{ID: 7, TTL: 9})
			h.renewed(&pb.LeaseKeepAliveResponse{ID: 8, TTL: 9})
			h.endsAt(t, heldFor)
		},
		"the cluster says so": func(t *testing.T, h *held) {
			h.until(3 * time.Second)
			h.renew(t, time.Second, 0)
			h.lost(t, 4*time.Second)
		},
		"given up": func(t *testing.T, h *held) {
			h.stop()
			h.until(10 * heldFor)
			if len(h.told) != 0 {
				t.Fatal("a lease that nobody keeps was reported lost:", <-h.told)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := hold(t)
				defer h.stop()
				run(t, h)
			})
		})
	}
}

// TestRenewalIsDue: a third of a lease's time after the last one was sent.
func TestRenewalIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold(t)
		defer h.stop()
		h.until(heldFor/3 - 1)
		if due := h.takeDue(time.Now()); len(due) != 0 {
			t.Error("renewed too early")
		}
		h.until(heldFor / 3)
		h.renew(t, time.Second, 9)
		h.until(2*heldFor/3 - 1)
		if due := h.takeDue(time.Now()); len(due) != 0 {
			t.Error("the second renewal is too early")
		}
		h.until(2 * heldFor / 3)
		h.renew(t, 0, 9)
	})
}
