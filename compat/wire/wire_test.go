package wire

import "testing"

// TestMethods: the protocol of etcd 3.7 has 49 RPCs.
func TestMethods(t *testing.T) {
	if n := len(Methods()); n != 49 {
		t.Errorf("%d RPCs", n)
	}
	for _, name := range []string{"KV/RangeStream", "Maintenance/Downgrade", "Auth/AuthStatus", "Lock/Unlock", "Election/Observe"} {
		m, err := Lookup(name)
		if err != nil || m.Request() == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Lookup("KV/Borrow"); err == nil {
		t.Error("an RPC that does not exist was found")
	}
}
