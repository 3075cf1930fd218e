package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson-io/keelson/compat/cluster"
)

// noiseKind is what a client does without end. It has as many calls under way as
// one connection each would make sense of on a machine that also runs the store.
type noiseKind string

const (
	noiseList   noiseKind = "list" // one after the other
	noiseLists  noiseKind = "lists"
	noiseWrites noiseKind = "writes"
)

// NoiseCommand is the argument that makes cmd/bench a client that makes noise.
const NoiseCommand = "-make-noise"

// MakeNoise does what spec ("lists@host:port") says until standard input ends;
// then it prints how many calls it made in a second. A refusal is answered by a
// short rest, as clients do.
func MakeNoise(spec string, in io.Reader, out io.Writer) error {
	kind, endpoint, _ := strings.Cut(spec, "@")
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the process that started this one
		io.Copy(io.Discard, in)
		cancel()
	}()
	parallel, conns, op := 4, 4, func(ctx context.Context, conn *grpc.ClientConn, _ *rand.Rand) error { return list(ctx, conn) }
	switch noiseKind(kind) {
	case noiseList:
		parallel, conns = 1, 1
	case noiseWrites:
		parallel, conns, op = 64, 1, func(ctx context.Context, conn *grpc.ClientConn, rng *rand.Rand) error {
			key := fmt.Appendf(nil, "/bench/noise/%06d", rng.IntN(100_000))
			_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: key, Value: value(rng, valueSize)})
			return err
		}
	}
	var dialled []*grpc.ClientConn
	defer func() { closeAll(dialled) }()
	for range conns {
		conn, err := cluster.Dial(endpoint)
		if err != nil {
			return err
		}
		dialled = append(dialled, conn)
	}
	began := time.Now()
	var done atomic.Int64
	err := each(ctx, parallel, parallel, func(ctx context.Context, i int) error {
		rng := rand.New(rand.NewPCG(uint64(i), 11))
		for ctx.Err() == nil {
			switch err := op(ctx, dialled[i%conns], rng); {
			case err == nil:
				done.Add(1)
			case status.Code(err) == codes.ResourceExhausted:
				time.Sleep(10 * time.Millisecond)
			case ctx.Err() == nil:
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	_, err = fmt.Fprintf(out, "%.1f\n", float64(done.Load())/time.Since(began).Seconds())
	return err
}

// noiseProcess is a client in a process of its own.
type noiseProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out bytes.Buffer
}

func runNoise(kind, endpoint string) (*noiseProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &noiseProcess{cmd: exec.Command(self, NoiseCommand, kind+"@"+endpoint)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return p, p.cmd.Start()
}

// stop ends the client and gives the calls it made in a second.
func (p *noiseProcess) stop() (float64, error) {
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("the noisy client: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(p.out.String()), 64)
}
