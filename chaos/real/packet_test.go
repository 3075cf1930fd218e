//go:build linux

package real

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// tcpPacket is a whole packet with a TCP segment.
func tcpPacket(from, to netip.Addr, flags byte, body string) []byte {
	p := make([]byte, ipHeader+tcpHeader, ipHeader+tcpHeader+len(body))
	p = append(p, body...)
	p[0], p[8], p[9] = 0x45, 64, protoTCP
	binary.BigEndian.PutUint16(p[2:4], uint16(len(p)))
	src, dst := from.As4(), to.As4()
	copy(p[12:16], src[:])
	copy(p[16:20], dst[:])
	binary.BigEndian.PutUint16(p[10:12], checksum(p[:ipHeader]))
	tcp := p[ipHeader:]
	binary.BigEndian.PutUint16(tcp[0:2], 4000)
	binary.BigEndian.PutUint16(tcp[2:4], 2379)
	binary.BigEndian.PutUint32(tcp[8:12], 77) // acknowledges
	tcp[12], tcp[13] = tcpHeader/4<<4, flags
	sealTCP(p, tcp)
	return p
}

// sound reports whether the checksums of a packet are right: a sum over all,
// themselves included, comes out as zero.
func sound(p []byte) bool {
	tcp := segment(p)
	pseudo := []byte{0, protoTCP, 0, 0}
	binary.BigEndian.PutUint16(pseudo[2:], uint16(len(tcp)))
	return checksum(p[:ipHeader]) == 0 && checksum(p[12:20], pseudo, tcp) == 0
}

func TestChecksum(t *testing.T) {
	// The example of RFC 1071, section 3: the sum is ddf2.
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("got %04x", got)
	}
	if got := checksum([]byte{0xff}); got != ^uint16(0xff00) {
		t.Errorf("an odd byte counts as %04x", got)
	}
}

func TestPackets(t *testing.T) {
	a, b := address(1), address(2)
	for _, body := range []string{"", "x", "some bytes"} {
		p := tcpPacket(a, b, tcpACK, body)
		if to, ok := destination(p); !ok || to != b {
			t.Errorf("it goes to %v, %v", to, ok)
		}
		if !sound(p) || string(payload(segment(p))) != body {
			t.Errorf("a packet with %q: sound %v, carries %q", body, sound(p), payload(segment(p)))
		}
	}
	p := tcpPacket(a, b, tcpACK, "some bytes")
	for what, change := range map[string]func([]byte){
		"a fragment":      func(p []byte) { p[7] = 1 },
		"no TCP":          func(p []byte) { p[9] = 17 },
		"a short header":  func(p []byte) { p[0] = 0x44 },
		"a header beyond": func(p []byte) { p[0] = 0x4f },
	} {
		bad := append([]byte(nil), p[:ipHeader+tcpHeader]...)
		change(bad)
		if segment(bad) != nil {
			t.Errorf("%s has a segment", what)
		}
	}
	if _, ok := destination(p[:10]); ok {
		t.Error("a piece of a header has a destination")
	}
	if _, ok := destination(append([]byte{0x60}, p[1:]...)); ok {
		t.Error("IPv6 has a destination")
	}
}

func TestResetOf(t *testing.T) {
	a, b := address(1), address(2)
	p := tcpPacket(a, b, tcpACK, "some bytes")
	back := resetOf(p)
	if back == nil || !sound(back) {
		t.Fatal("no sound answer")
	}
	tcp := segment(back)
	if to, _ := destination(back); to != a || tcp[13] != tcpRST || binary.BigEndian.Uint32(tcp[4:8]) != 77 ||
		binary.BigEndian.Uint16(tcp[0:2]) != 2379 || binary.BigEndian.Uint16(tcp[2:4]) != 4000 {
		t.Errorf("the answer is %x to %v", back, to)
	}
	for what, flags := range map[string]byte{"a reset": tcpRST | tcpACK, "one that acknowledges nothing": 0} {
		if resetOf(tcpPacket(a, b, flags, "")) != nil {
			t.Errorf("%s is answered", what)
		}
	}
}
