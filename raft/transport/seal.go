package transport

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Frames and calls are sealed: a checksum goes ahead of the bytes that it covers.
// A bit that turns on the way past TCP's own sum, which sees most but not all of
// them, must not become a log entry that verifies for ever after. Parts of a
// snapshot carry a checksum of their own.
//
//	sum    4 bytes  CRC-32C of the rest, big endian
//	rest
const sealSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealOf is the seal of parts that travel one behind another.
func sealOf(parts ...[]byte) []byte {
	sum := uint32(0)
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return binary.BigEndian.AppendUint32(nil, sum)
}

// unseal returns what a seal covers if it is whole.
func unseal(b []byte) ([]byte, error) {
	if len(b) < sealSize {
		return nil, fmt.Errorf("%w: %d bytes without a checksum", errMalformed, len(b))
	}
	if rest := b[sealSize:]; binary.BigEndian.Uint32(b) == crc32.Checksum(rest, castagnoli) {
		return rest, nil
	}
	return nil, fmt.Errorf("%w: the checksum of %d bytes does not match", errMalformed, len(b)-sealSize)
}
