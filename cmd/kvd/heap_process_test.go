package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

var memstats = regexp.MustCompile(`(?m)^go_memstats_heap_(\w+)_bytes (\S+)$`)

// TestBusyTimeIsOver: a member that has nothing to do any more gives memory back. Its
// heap, nearly all of it keys, is so large that nothing else would for two minutes.
func TestBusyTimeIsOver(t *testing.T) {
	t.Setenv("GOGC", "") // as long as nobody decides otherwise
	s := newSite(t)
	p := s.start(t, "--unsafe-no-fsync")
	s.await(t, p)
	kv := pb.NewKVClient(dial(t, s.client))
	const size = 64 << 10
	const keys = 2*smallHeap/size + 200 // the last collection may have been at half of them
	for i := range keys {
		key := fmt.Sprintf("%06d%s", i, strings.Repeat("k", size))
		if _, err := kv.Put(context.Background(), &pb.PutRequest{Key: []byte(key)}); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		text, err := fetch(s.client, "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		heap := map[string]float64{}
		for _, m := range memstats.FindAllStringSubmatch(text, -1) {
			heap[m[1]], _ = strconv.ParseFloat(m[2], 64)
		}
		unused := heap["idle"] - heap["released"]
		if alloc := heap["alloc"]; alloc > keys*size && alloc < 1.5*keys*size && unused < 2<<20 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d keys of %d bytes, and the heap's bytes are %v", keys, size, heap)
		}
	}
}
