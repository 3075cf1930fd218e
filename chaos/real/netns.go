//go:build linux

package real

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// netns is a network namespace with one TUN device. It has no name: it ends with
// the last thread or process in it.
type netns struct {
	calls chan func()
	tun   *os.File
}

// device is the name of the TUN device in each namespace.
const device = "tun0"

// newNetns makes a namespace whose device has the address, on a network of 24 bits.
func newNetns(addr netip.Addr) (*netns, error) {
	n := &netns{calls: make(chan func())}
	ready := make(chan error)
	go n.live(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	var err error
	n.do(func() { n.tun, err = openTun(addr) })
	return n, err
}

// live is the thread inside the namespace. It is never given back to the runtime,
// which would use it for goroutines that belong elsewhere; when calls is closed it
// ends.
func (n *netns) live(ready chan<- error) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		ready <- fmt.Errorf("a network namespace: %w", err)
		return
	}
	ready <- setUp("lo", "127.0.0.1", 8)
	for call := range n.calls {
		call()
	}
}

// do runs f in the namespace; processes that f starts are in it.
func (n *netns) do(f func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); f() }
	<-done
}

func (n *netns) close() {
	n.tun.Close()
	close(n.calls)
}

// openTun makes a TUN device in the thread's namespace.
func openTun(addr netip.Addr) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(device)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err == nil {
		err = setUp(device, addr.String(), 24)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("a TUN device: %w", err)
	}
	return os.NewFile(uintptr(fd), "tun "+addr.String()), nil
}

// setUp gives a device of the thread's namespace an address and turns it on.
func setUp(name, addr string, bits int) error {
	for _, args := range [][]string{
		{"addr", "replace", fmt.Sprintf("%s/%d", addr, bits), "dev", name},
		{"link", "set", name, "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	return nil
}
