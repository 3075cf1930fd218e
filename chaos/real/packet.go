//go:build linux

package real

import (
	"encoding/binary"
	"net/netip"
)

// IPv4 and TCP, as far as the switch looks into packets.
const (
	ipHeader  = 20 // the least
	tcpHeader = 20
	protoTCP  = 6

	tcpRST = 0x04
	tcpACK = 0x10
)

// destination is where an IPv4 packet goes; ok is false for anything else.
func destination(p []byte) (addr netip.Addr, ok bool) {
	if len(p) < ipHeader || p[0]>>4 != 4 {
		return addr, false
	}
	return netip.AddrFrom4([4]byte(p[16:20])), true
}

// segment returns the TCP part of a whole packet, nil if there is none.
func segment(p []byte) []byte {
	head := int(p[0]&0xf) * 4
	fragment := binary.BigEndian.Uint16(p[6:8]) & 0x3fff
	if p[9] != protoTCP || head < ipHeader || len(p) < head+tcpHeader || fragment != 0 {
		return nil
	}
	return p[head:]
}

// payload returns what a TCP segment carries.
func payload(tcp []byte) []byte {
	head := int(tcp[12]>>4) * 4
	if head < tcpHeader || head > len(tcp) {
		return nil
	}
	return tcp[head:]
}

// checksum is the internet checksum over the parts, each of an even length but the last.
func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// sealTCP computes the checksum of a packet's TCP segment anew.
func sealTCP(p []byte, tcp []byte) {
	tcp[16], tcp[17] = 0, 0
	var pseudo [4]byte
	pseudo[1] = protoTCP
	binary.BigEndian.PutUint16(pseudo[2:], uint16(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:18], checksum(p[12:20], pseudo[:], tcp))
}

// resetOf makes the packet with which the receiver of p would end the connection:
// nil if p carries none, or is one itself.
func resetOf(p []byte) []byte {
	tcp := segment(p)
	if tcp == nil || tcp[13]&tcpRST != 0 || tcp[13]&tcpACK == 0 {
		return nil
	}
	out := make([]byte, ipHeader+tcpHeader)
	out[0], out[8], out[9] = 0x45, 64, protoTCP
	binary.BigEndian.PutUint16(out[2:4], uint16(len(out)))
	copy(out[12:16], p[16:20])
	copy(out[16:20], p[12:16])
	binary.BigEndian.PutUint16(out[10:12], checksum(out[:ipHeader]))
	back := out[ipHeader:]
	copy(back[0:2], tcp[2:4])
	copy(back[2:4], tcp[0:2])
	copy(back[4:8], tcp[8:12]) // its sequence number is what the other waits for
	back[12], back[13] = tcpHeader/4<<4, tcpRST
	sealTCP(out, back)
	return out
}
