package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/keelson-io/keelson/client"
)

// span is a range of keys as arguments and flags name it.
type span struct {
	prefix, fromKey bool
}

func (s *span) define(c *cobra.Command) {
	c.Flags().BoolVar(&s.prefix, "prefix", false, "all keys that begin with KEY")
	c.Flags().BoolVar(&s.fromKey, "from-key", false, "all keys from KEY on")
	c.MarkFlagsMutuallyExclusive("prefix", "from-key")
}

// of returns key and range end as requests have them.
func (s *span) of(args []string) (key, end []byte, err error) {
	key = []byte(args[0])
	if len(args) > 1 && (s.prefix || s.fromKey) {
		return nil, nil, usage("too many arguments: --prefix and --from-key take one key")
	}
	switch {
	case len(args) > 1:
		return key, []byte(args[1]), nil
	case s.prefix && len(key) == 0, s.fromKey && len(key) == 0:
		return []byte{0}, []byte{0}, nil
	case s.prefix:
		return key, prefixEnd(key), nil
	case s.fromKey:
		return key, []byte{0}, nil
	}
	return key, nil, nil
}

// asRange is a range of requests as the client has it.
func asRange(key, end []byte) client.Range {
	if len(end) == 0 {
		return client.Key(string(key))
	}
	if string(end) == "\x00" {
		return client.From(string(key))
	}
	return client.Span(string(key), string(end))
}

// onWire is a key as the cluster sends it, which is what output is made of.
func onWire(kv client.KV) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: []byte(kv.Key), Value: kv.Value, CreateRevision: int64(kv.Created), ModRevision: int64(kv.Modified), Version: kv.Version, Lease: int64(kv.Lease),
	}
}

func eventOnWire(ev client.Event) *mvccpb.Event {
	e := &mvccpb.Event{Kv: onWire(ev.KV)}
	if ev.Type == client.EventDelete {
		e.Type = mvccpb.Event_DELETE
	}
	if ev.Previous != nil {
		e.PrevKv = onWire(*ev.Previous)
	}
	return e
}

// prefixEnd is the first key after all that begin with prefix.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// parseLease reads a lease's id, which is hexadecimal everywhere.
func parseLease(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 16, 64)
	if err != nil {
		return 0, usage("%q is no lease id (hexadecimal)", s)
	}
	return id, nil
}

// serializable reads --consistency.
func serializable(s string) (bool, error) {
	switch s {
	case "l", "s":
		return s == "s", nil
	}
	return false, usage("--consistency %q is neither l (linearizable) nor s (serializable)", s)
}

// pair prints a key and its value, each on a line, as etcdctl does.
func (a *app) pair(w io.Writer, kv *mvccpb.KeyValue, valueOnly bool) {
	switch {
	case a.output == outName:
		fmt.Fprintln(w, a.bytesText(kv.Key))
	case a.output == outRaw:
		w.Write(kv.Value)
	default:
		if !valueOnly {
			fmt.Fprintln(w, a.bytesText(kv.Key))
		}
		fmt.Fprintln(w, a.bytesText(kv.Value))
	}
}

var pairHead = []string{"KEY", "VALUE", "CREATED", "MODIFIED", "VERSION", "LEASE"}

func (a *app) pairRow(kv *mvccpb.KeyValue) []string {
	lease := ""
	if kv.Lease != 0 {
		lease = fmt.Sprintf("%x", kv.Lease)
	}
	return []string{
		a.bytesText(kv.Key), a.bytesText(kv.Value),
		fmt.Sprint(kv.CreateRevision), fmt.Sprint(kv.ModRevision), fmt.Sprint(kv.Version), lease,
	}
}

func (a *app) pairRows(kvs []*mvccpb.KeyValue) (rows [][]string) {
	for _, kv := range kvs {
		rows = append(rows, a.pairRow(kv))
	}
	return rows
}

// enum reads a flag that names a value of one of the protocol's enumerations.
func enum[E ~int32](flag, s string, values map[string]int32) (E, error) {
	if v, ok := values[strings.ToUpper(s)]; ok {
		return E(v), nil
	}
	return 0, usage("bad --%s %q", flag, s)
}

func sortOrder(order, target string, r *pb.RangeRequest) (err error) {
	values := map[string]int32{"VERSION": 1, "CREATE": 2, "MODIFY": 3, "VALUE": 4, "KEY": 0, "": 0}
	if r.SortTarget, err = enum[pb.RangeRequest_SortTarget]("sort-by", target, values); err != nil {
		return err
	}
	r.SortOrder, err = enum[pb.RangeRequest_SortOrder]("order", order, map[string]int32{"": 0, "ASCEND": 1, "DESCEND": 2})
	if r.SortOrder == pb.RangeRequest_NONE && r.SortTarget != pb.RangeRequest_KEY {
		r.SortOrder = pb.RangeRequest_ASCEND
	}
	return err
}
