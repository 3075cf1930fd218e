package porttest

import (
	"fmt"
	"net"
	"testing"
)

func TestClaimsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 300 {
		port, err := Claim()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d was given twice", port)
		}
		seen[port] = true
	}
	for port := range seen {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatalf("a claimed port cannot be listened on: %v", err)
		}
		l.Close()
	}
}
