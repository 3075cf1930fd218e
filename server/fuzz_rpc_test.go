package server

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/mvcc/engine"
	"github.com/keelson-io/keelson/raft/vfs"
)

// FuzzRPC sends any bytes to any RPC, unary or the first message of a stream. It
// must be answered or refused, and the member goes on. Those that change the
// membership are not among them: this member is alone, without a log to change it in.
func FuzzRPC(f *testing.F) {
	for i, seed := range decoderSeeds() {
		f.Add(uint8(i), seed)
	}
	s := newSolo(f)
	s.fill(f, 10, 5)
	var methods []string
	for service, info := range s.services().GetServiceInfo() {
		for _, m := range info.Methods {
			if service == pb.Cluster_ServiceDesc.ServiceName {
				continue
			}
			methods = append(methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(methods)
	for i := range methods {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0x0a, 1, 'a'})
		f.Add(uint8(i), []byte{0x08, 1, 0x10, 1})
	}
	desc := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		method := methods[int(which)%len(methods)]
		// Some wait: for a lock, an election, the flusher that is not there.
		ctx, cancel := context.WithTimeout(callContext(t), 20*time.Millisecond)
		defer cancel()
		stream, err := s.conn.NewStream(ctx, desc, method, rawCodecOption)
		if err != nil {
			return // the deadline
		}
		in, out := rawMessage(body), rawMessage(nil)
		if err := stream.SendMsg(&in); err == nil {
			_ = stream.CloseSend()
		}
		for err == nil {
			err = stream.RecvMsg(&out)
		}
		if rev := s.store.Revision(); rev < 1 {
			t.Fatalf("the store is at revision %d", rev)
		}
	})
}

// FuzzRestore makes a member of any bytes. They are refused, or there is no space
// for the log at the end, which is large; the directory is left empty.
func FuzzRestore(f *testing.F) {
	s := newSolo(f)
	s.fill(f, 10, 5)
	if _, err := s.lease.LeaseGrant(callContext(f), &pb.LeaseGrantRequest{TTL: 100}); err != nil {
		f.Fatal(err)
	}
	if err := s.store.Flush(); err != nil {
		f.Fatal(err)
	}
	v, err := s.engine.View()
	if err != nil {
		f.Fatal(err)
	}
	var dump bytes.Buffer
	if _, err := v.WriteTo(&dump); err != nil {
		f.Fatal(err)
	}
	f.Add(dump.Bytes(), int64(0))
	f.Add(dump.Bytes(), int64(1000))
	f.Fuzz(func(t *testing.T, snapshot []byte, bump int64) {
		fs := vfs.NewMem(1)
		fs.SetSpace(4 << 20)
		cfg := homeConfig(fs, "a")
		cfg.Engine = func(path string) (engine.Engine, error) {
			file, err := fs.Open(path)
			if err != nil {
				return nil, err
			}
			defer file.Close()
			size, err := file.Size()
			if err != nil {
				return nil, err
			}
			return engine.LoadMemory(io.NewSectionReader(file, 0, size))
		}
		r := Restore{Config: *cfg, Snapshot: bytes.NewReader(snapshot), Size: int64(len(snapshot)), SkipHashCheck: true, BumpRevision: bump}
		if _, err := r.Run(t.Context()); err == nil {
			t.Fatal("the log found space")
		}
		for _, dir := range []string{cfg.walDir(), cfg.snapDir()} {
			if left, _ := fs.List(dir); len(left) > 0 {
				t.Errorf("%v is left in %s", left, dir)
			}
		}
	})
}
