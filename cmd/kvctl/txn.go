package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (a *app) txnCommand() *cobra.Command {
	var interactive bool
	var file string
	c := verb("txn", "Make a transaction: compares, what to do if all hold, what to do else",
		`  kvctl txn <<'END'
  mod("a") > "0"
  value("b") = "on"

  put a 2
  get b

  del a
  END`, cobra.NoArgs,
		func(ctx context.Context, _ []string) error { return a.txn(ctx, interactive, file) })
	c.Long = c.Short + `.

Three blocks, each ended by an empty line, are read from standard input or --file:
compares, one a line: create, mod, version, lease or value of "KEY", then =, !=, < or >, then "VALUE";
then commands for success, then for failure: put, get and del, as on the command line.`
	c.Flags().BoolVarP(&interactive, "interactive", "i", false, "say what is read next")
	c.Flags().StringVarP(&file, "file", "f", "", "read from this file")
	return c
}

func (a *app) txn(ctx context.Context, interactive bool, file string) error {
	in := a.lines
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return fileFailed("read a transaction", err)
		}
		defer f.Close()
		in = bufio.NewReader(f)
	}
	r := &pb.TxnRequest{}
	block := func(title string, add func(line string) error) error {
		if interactive {
			fmt.Fprintf(a.out, "%s:\n", title)
		}
		return eachLine(in, add)
	}
	err := block("compares", func(line string) error {
		c, err := parseCompare(line)
		r.Compare = append(r.Compare, c)
		return err
	})
	for _, b := range []struct {
		title string
		ops   *[]*pb.RequestOp
	}{{"success requests (get, put, del)", &r.Success}, {"failure requests (get, put, del)", &r.Failure}} {
		if err != nil {
			return err
		}
		err = block(b.title, func(line string) error {
			op, err := parseOp(line)
			*b.ops = append(*b.ops, op)
			return err
		})
	}
	if err != nil {
		return err
	}
	var resp *pb.TxnResponse
	err = a.call(ctx, "txn", func(ctx context.Context, to *remote) (err error) {
		resp, err = to.kv().Txn(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	return a.show(result{value: txnJSON(resp), simple: func(w io.Writer) { a.txnText(w, resp) }})
}

// eachLine reads to an empty line, or the end.
func eachLine(in *bufio.Reader, add func(line string) error) error {
	for {
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fileFailed("read a transaction", err)
		}
		line = strings.TrimSpace(line)
		if line == "" {
			return nil
		}
		if bad := add(line); bad != nil {
			return bad
		}
		if err != nil {
			return nil
		}
	}
}

// parseCompare reads a line such as mod("key") > "3".
func parseCompare(line string) (*pb.Compare, error) {
	bad := usage("bad compare %s: want create|mod|version|lease|value(\"KEY\") =|!=|<|> \"VALUE\"", line)
	name, rest, ok := strings.Cut(line, "(")
	if !ok {
		return nil, bad
	}
	key, rest, err := quoted(strings.TrimSpace(rest))
	if err != nil || !strings.HasPrefix(rest, ")") {
		return nil, bad
	}
	c := &pb.Compare{Key: []byte(key)}
	rest = strings.TrimSpace(rest[1:])
	ok = false
	for op, result := range map[string]pb.Compare_CompareResult{
		"=": pb.Compare_EQUAL, "!=": pb.Compare_NOT_EQUAL, "<": pb.Compare_LESS, ">": pb.Compare_GREATER,
	} {
		if after, found := strings.CutPrefix(rest, op); found {
			c.Result, rest, ok = result, after, true
			break
		}
	}
	if !ok {
		return nil, bad
	}
	value, rest, err := quoted(strings.TrimSpace(rest))
	if err != nil || rest != "" {
		return nil, bad
	}
	if name == "value" || name == "val" {
		c.Target, c.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: []byte(value)}
		return c, nil
	}
	base := 10
	if name == "lease" {
		base = 16
	}
	n, err := strconv.ParseInt(value, base, 64)
	if err != nil {
		return nil, bad
	}
	switch name {
	case "create", "c":
		c.Target, c.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: n}
	case "mod", "m":
		c.Target, c.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: n}
	case "version", "ver":
		c.Target, c.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: n}
	case "lease":
		c.Target, c.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: n}
	default:
		return nil, bad
	}
	return c, nil
}

// quoted takes one word off s: a Go string, or all up to a space or ")".
func quoted(s string) (word, rest string, err error) {
	if strings.HasPrefix(s, `"`) || strings.HasPrefix(s, "`") {
		prefix, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", err
		}
		word, err = strconv.Unquote(prefix)
		return word, s[len(prefix):], err
	}
	if strings.HasPrefix(s, "'") {
		if end := strings.IndexByte(s[1:], '\''); end >= 0 {
			return s[1 : end+1], s[end+2:], nil
		}
		return "", "", errors.New("no closing quote")
	}
	if end := strings.IndexAny(s, " )"); end >= 0 {
		return s[:end], s[end:], nil
	}
	return s, "", nil
}

// words cuts a line as a shell would.
func words(line string) (out []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		var word string
		if line[0] == '"' || line[0] == '\'' || line[0] == '`' {
			word, line, err = quoted(line)
		} else if end := strings.IndexByte(line, ' '); end >= 0 {
			word, line = line[:end], line[end:]
		} else {
			word, line = line, ""
		}
		if err != nil {
			return nil, err
		}
		out = append(out, word)
	}
	return out, nil
}

// parseOp reads a command of a transaction with the commands' own flags, but
// captures the request instead of sending it.
func parseOp(line string) (*pb.RequestOp, error) {
	args, err := words(line)
	if err != nil || len(args) == 0 {
		return nil, usage("bad request %s: %v", line, err)
	}
	var op *pb.RequestOp
	var request *cobra.Command
	t := &app{world: world{in: strings.NewReader("")}, lines: bufio.NewReader(strings.NewReader(""))}
	t.capture = func(r any) {
		switch r := r.(type) {
		case *pb.RangeRequest:
			op = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
		case *pb.PutRequest:
			op = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
		case *pb.DeleteRangeRequest:
			op = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
		}
	}
	switch args[0] {
	case "get":
		request = t.getCommand()
	case "put":
		request = t.putCommand()
	case "del":
		request = t.delCommand()
	default:
		return nil, usage("bad request %s: a transaction has get, put and del", line)
	}
	request.SilenceErrors, request.SilenceUsage = true, true
	request.SetArgs(args[1:])
	if err := request.Execute(); err != nil {
		return nil, usage("bad request %s: %v", line, err)
	}
	return op, nil
}

func (a *app) txnText(w io.Writer, resp *pb.TxnResponse) {
	if resp.Succeeded {
		fmt.Fprintln(w, "SUCCESS")
	} else {
		fmt.Fprintln(w, "FAILURE")
	}
	for _, r := range resp.Responses {
		fmt.Fprintln(w)
		switch {
		case r.GetResponsePut() != nil:
			a.putText(w, r.GetResponsePut())
		case r.GetResponseDeleteRange() != nil:
			a.delText(w, r.GetResponseDeleteRange())
		default:
			for _, kv := range r.GetResponseRange().GetKvs() {
				a.pair(w, kv, false)
			}
		}
	}
}

// txnJSON is an answer in etcdctl's JSON.
func txnJSON(resp *pb.TxnResponse) any {
	var list []any
	for _, r := range resp.Responses {
		one := map[string]any{}
		switch {
		case r.GetResponsePut() != nil:
			one["response_put"] = r.GetResponsePut()
		case r.GetResponseDeleteRange() != nil:
			one["response_delete_range"] = r.GetResponseDeleteRange()
		case r.GetResponseRange() != nil:
			one["response_range"] = r.GetResponseRange()
		}
		list = append(list, map[string]any{"Response": one})
	}
	return struct {
		Header    *pb.ResponseHeader `json:"header,omitempty"`
		Succeeded bool               `json:"succeeded,omitempty"`
		Responses []any              `json:"responses,omitempty"`
	}{resp.Header, resp.Succeeded, list}
}
