//go:build linux

package real

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wired is a switch with two ports, whose devices are sockets that keep packets
// apart, as a TUN device does.
func wired(t *testing.T) (s *Switch, a, b *os.File) {
	s = newSwitch(1)
	ends := make([]*os.File, 2)
	var plugged []*os.File
	for i := range ends {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		own := os.NewFile(uintptr(fds[0]), "switch's end")
		ends[i] = os.NewFile(uintptr(fds[1]), "member's end")
		s.Plug(address(i+1), own)
		plugged = append(plugged, own)
	}
	t.Cleanup(func() {
		for _, f := range append(plugged, ends...) {
			f.Close()
		}
		s.pumps.Wait()
	})
	return s, ends[0], ends[1]
}

// send writes a packet for each body.
func send(t *testing.T, f *os.File, n int) []byte {
	p := tcpPacket(address(1), address(2), tcpACK, "some bytes")
	for range n {
		if _, err := f.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// receive reads one packet, and waits for it.
func receive(t *testing.T, f *os.File) []byte {
	buf := make([]byte, 1<<16)
	if err := f.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := f.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestSwitch(t *testing.T) {
	toB := func(l Link) func(*Switch) { return func(s *Switch) { s.Set(address(1), address(2), l) } }
	for name, c := range map[string]struct {
		set  func(*Switch)
		look func(t *testing.T, s *Switch, sent []byte, a, b *os.File)
	}{
		"good": {func(*Switch) {}, func(t *testing.T, s *Switch, sent []byte, _, b *os.File) {
			if got := receive(t, b); !bytes.Equal(got, sent) {
				t.Errorf("%x came for %x", got, sent)
			}
		}},
		"healed": {func(s *Switch) { toB(Link{Cut: true})(s); s.Heal() }, func(t *testing.T, _ *Switch, sent []byte, _, b *os.File) {
			if got := receive(t, b); !bytes.Equal(got, sent) {
				t.Errorf("%x came for %x", got, sent)
			}
		}},
		"delayed": {toB(Link{Delay: time.Millisecond}), func(t *testing.T, s *Switch, sent []byte, _, b *os.File) {
			if got := receive(t, b); !bytes.Equal(got, sent) || s.Counts.Delayed.Load() == 0 {
				t.Errorf("%x came for %x, %d delayed", got, sent, s.Counts.Delayed.Load())
			}
		}},
		"twice": {toB(Link{Duplicate: 1}), func(t *testing.T, s *Switch, sent []byte, _, b *os.File) {
			for range 2 {
				if got := receive(t, b); !bytes.Equal(got, sent) {
					t.Errorf("%x came for %x", got, sent)
				}
			}
		}},
		"damaged": {toB(Link{Damage: 1}), func(t *testing.T, _ *Switch, sent []byte, _, b *os.File) {
			if got := receive(t, b); bytes.Equal(got, sent) || sound(got) {
				t.Error("the packet's checksum does not see the damage")
			}
		}},
		"forged": {toB(Link{Forge: 1}), func(t *testing.T, _ *Switch, sent []byte, _, b *os.File) {
			if got := receive(t, b); bytes.Equal(payload(segment(got)), payload(segment(sent))) || !sound(got) {
				t.Error("the packet carries what was sent, or its checksum tells")
			}
		}},
		"reset": {toB(Link{Reset: true}), func(t *testing.T, _ *Switch, _ []byte, a, _ *os.File) {
			if got := receive(t, a); segment(got)[13]&tcpRST == 0 {
				t.Errorf("the sender got %x", got)
			}
		}},
		"cut": {toB(Link{Cut: true}), func(t *testing.T, s *Switch, sent []byte, _, b *os.File) {
			counted(t, s.Counts.Lost.Load, 1)
			s.Heal() // what is sent from now on is the first to come
			sent[ipHeader+tcpHeader] = 'S'
			sealTCP(sent, segment(sent))
			pass(t, s, sent)
			if got := receive(t, b); !bytes.Equal(got, sent) {
				t.Error("a packet came through a cut")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := wired(t)
			c.set(s)
			c.look(t, s, send(t, a, 1), a, b)
		})
	}
}

// pass sends a packet on as the first port's pump does.
func pass(t *testing.T, s *Switch, p []byte) {
	s.mu.Lock()
	from := s.ports[address(1)]
	s.mu.Unlock()
	to, l := s.route(from, address(2))
	if to == nil {
		t.Fatal("no route")
	}
	s.pass(from, to, l, p)
}

// TestLoss loses about as many packets as it is told, and no other way round.
func TestLoss(t *testing.T) {
	s, a, _ := wired(t)
	s.Set(address(1), address(2), Link{Loss: 1})
	send(t, a, 50)
	counted(t, s.Counts.Lost.Load, 50)
}

// TestUnknownDestination: a packet to nobody goes nowhere, and the pump goes on.
func TestUnknownDestination(t *testing.T) {
	s, a, b := wired(t)
	if _, err := a.Write(tcpPacket(address(1), address(9), tcpACK, "")); err != nil {
		t.Fatal(err)
	}
	sent := send(t, a, 1)
	if got := receive(t, b); !bytes.Equal(got, sent) {
		t.Errorf("%x came for %x", got, sent)
	}
	counted(t, s.Counts.Passed.Load, 1)
}

// counted waits until a count is as great as that.
func counted(t *testing.T, count func() int64, want int64) {
	for begin := time.Now(); count() < want; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%d counted, not %d", count(), want)
		}
	}
}
