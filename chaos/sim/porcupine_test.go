package sim

import (
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/workload"
)

// register is one key as a checker sees it that knows nothing of revisions: a
// value that is written whole and read whole.
var register = porcupine.Model{
	Partition: func(ops []porcupine.Operation) (parts [][]porcupine.Operation) {
		byKey := map[string]int{}
		for _, op := range ops {
			key := op.Input.(access).key
			if _, ok := byKey[key]; !ok {
				byKey[key] = len(parts)
				parts = append(parts, nil)
			}
			parts[byKey[key]] = append(parts[byKey[key]], op)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		if in := input.(access); in.write {
			return true, in.value
		}
		return output.(string) == state.(string), state
	},
}

type access struct {
	key, value string
	write      bool
}

// accesses are the puts and the linearizable reads of single keys.
func accesses(h *history.History) (ops []porcupine.Operation) {
	for _, op := range h.Ops {
		x := porcupine.Operation{ClientId: op.Client, Call: int64(op.Call), Return: int64(op.Return)}
		switch r := op.Request.(type) {
		case *pb.PutRequest:
			if op.Outcome == history.Refused {
				continue
			}
			x.Input = access{string(r.Key), string(r.Value), true}
			if op.Outcome == history.Unknown {
				x.Return = math.MaxInt64 // it may happen at any time, or never: then nobody reads it
			}
		case *pb.RangeRequest:
			if op.Outcome != history.OK {
				continue
			}
			x.Input, x.Output = access{key: string(r.Key)}, ""
			if kvs := op.Response.(*pb.RangeResponse).Kvs; len(kvs) > 0 {
				x.Output = string(kvs[0].Value)
			}
		default:
			continue // an operator's
		}
		ops = append(ops, x)
	}
	return ops
}

// TestPorcupineAgrees holds the checker by revision order to one that searches.
func TestPorcupineAgrees(t *testing.T) {
	for seed := *first; seed < *first+2; seed++ {
		cfg := Draw(seed)
		cfg.Members, cfg.Clients, cfg.Keys, cfg.Safety, cfg.Watchers = 3, 6, 4, 8*time.Second, 0
		cfg.Special, cfg.Kinds = 0, nil
		cfg.Mix = workload.Mix{Put: 10, Get: 10}
		r := Run(cfg, Plan(cfg), nil)
		if r.Failure != nil {
			t.Fatal(r.Line("now"))
		}
		ops := accesses(r.History)
		if got := porcupine.CheckOperationsTimeout(register, ops, 10*time.Second); got != porcupine.Ok {
			t.Fatalf("seed %#x: porcupine says %v of %d operations that O1 accepts", seed, got, len(ops))
		}
		for i := len(ops) - 1; i >= 0; i-- {
			if in := ops[i].Input.(access); !in.write && ops[i].Output != "" {
				ops[i].Output = "never written"
				break
			}
		}
		if got := porcupine.CheckOperationsTimeout(register, ops, 10*time.Second); got != porcupine.Illegal {
			t.Fatalf("porcupine says %v of a read that nobody wrote", got)
		}
	}
}
