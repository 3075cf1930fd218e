// Package porttest finds loopback ports for the servers of tests and rehearsals.
// Between the moment a port is found and the one in which a server listens on it,
// and while that server is down, nobody else who asks this package gets it, in this
// process or another.
package porttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// lowest and highest port given: below those that kernels take for connections.
const (
	lowest  = 12000
	highest = 31000
)

// claims are UDP sockets on the numbers of the ports that were given. Nothing is
// ever sent to them: the kernel lets one process have each, until it ends.
var claims struct {
	sync.Mutex
	held []net.PacketConn
}

// Claim returns a TCP port of 127.0.0.1 that nobody listens on.
func Claim() (port int, err error) {
	for range 1000 {
		port = lowest + rand.IntN(highest-lowest)
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		claim, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			claim.Close()
			continue
		}
		l.Close()
		claims.Lock()
		claims.held = append(claims.held, claim)
		claims.Unlock()
		return port, nil
	}
	return 0, errors.New("no free port found")
}
