//go:build wasip1

package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"
	"unsafe"

	"github.com/keelson-io/keelson/chaos/wasm/wire"
	"github.com/keelson-io/keelson/raft/vfs"
)

//go:wasmimport keelson call
func hostCall(op uint32, request unsafe.Pointer, length uint32, reply unsafe.Pointer, room uint32) uint32

// replyRoom is for answers whose length the guest cannot know: names of a directory.
const replyRoom = 64 << 10

// ask asks the host. It may let other goroutines run first: without preemption
// goroutines change only where they wait, and this is a place where one could be
// interrupted. What it draws comes from the host, by way of the runtime's seed.
func ask(op wire.Op, r wire.Request) (wire.Reply, error) {
	for rand.IntN(8) == 0 {
		runtime.Gosched()
	}
	request := r.Append(nil)
	reply := make([]byte, wire.ReplyHead+max(replyRoom, int(r.Size)))
	n := hostCall(uint32(op), unsafe.Pointer(&request[0]), uint32(len(request)), unsafe.Pointer(&reply[0]), uint32(len(reply)))
	answer, err := wire.DecodeReply(reply[:n])
	if err != nil {
		return answer, err
	}
	switch answer.Code {
	case wire.NotExist:
		err = fmt.Errorf("%s: %w", r.Name, vfs.ErrNotExist)
	case wire.Exist:
		err = fmt.Errorf("%s: %w", r.Name, vfs.ErrExist)
	case wire.Locked:
		err = fmt.Errorf("%s: %w", r.Name, vfs.ErrLocked)
	case wire.NoSpace:
		err = fmt.Errorf("%s: %w", r.Name, vfs.ErrNoSpace)
	case wire.Failed:
		err = fmt.Errorf("%s: %s", r.Name, answer.Data)
	}
	return answer, err
}

// await sleeps for as long as the host says that a sync takes.
func await() error {
	r, err := ask(wire.SyncBegin, wire.Request{})
	time.Sleep(time.Duration(r.N))
	return err
}
