//go:build linux

package real

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/chaos/history"
	"github.com/keelson-io/keelson/chaos/oracle"
)

// This file is clients of the Kubernetes API that members serve. They make, change,
// delete and list ConfigMaps, as plainly as the API has it: one member after the
// other, each until it fails. Others watch (informer.go).
//
// While a run goes on, what they ask is written down in short: a put of a tag, a
// delete, a range. A member makes transactions of it, with objects in them that the
// client never sees whole. So before the oracles are asked, attribute finds in the
// log the transaction that carries a write's tag, or deletes the revision that a
// delete was about, and puts it in the short one's place; the revision stays the one
// that the client was told. From then on it is judged like any other call: it must
// be in the log, once, in the order of time, and lists must be what the log says.

const (
	objectsPrefix = "/registry/configmaps/default/chaos-"
	objectsEnd    = "/registry/configmaps/default/chaos."
	objectsPath   = "/api/v1/namespaces/default/configmaps"
	objectsHeld   = 20 // that clients fight for
)

// withObjects reports that a run has such clients: one of three, if nothing is
// encrypted, nobody logs in, and every build knows the API.
func (r *Run) withObjects() bool {
	return r.Seed%3 == 0 && r.certs == nil && r.user == "" && !slices.ContainsFunc(r.Faults, (*Fault).NeedsOlder)
}

func (m *Member) resourceURL() string { return fmt.Sprintf("http://%s:6443", m.Addr) }

// objects is one client. It begins anew with what a list says.
type objects struct {
	*caller
	http  *http.Client
	known map[string]string // resource versions by name
}

func newObjects(w *caller) *objects {
	return &objects{w, &http.Client{Timeout: callTimeout, Transport: &http.Transport{IdleConnTimeout: 10 * time.Second}}, map[string]string{}}
}

// object is as much of a ConfigMap as these clients need.
type object struct {
	APIVersion string            `json:"apiVersion,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Metadata   objectMeta        `json:"metadata"`
	Data       map[string]string `json:"data,omitempty"`
}

type objectMeta struct {
	Name            string `json:"name,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
}

// step asks once.
func (o *objects) step() {
	name := fmt.Sprint("chaos-", o.rand.IntN(objectsHeld))
	switch n := o.rand.IntN(10); {
	case n < 4 && o.known[name] != "":
		o.write(http.MethodPut, "/"+name, object{Metadata: objectMeta{name, o.known[name]}})
	case n < 5 && o.known[name] != "":
		o.remove(name)
	case n < 8:
		o.write(http.MethodPost, "", object{Metadata: objectMeta{Name: name}})
	default:
		o.list("")
	}
}

// write makes or changes an object, with a tag in it.
func (o *objects) write(verb, path string, x object) {
	tag := strings.TrimSpace(string(o.tag(0)))
	x.APIVersion, x.Kind, x.Data = "v1", "ConfigMap", map[string]string{"tag": tag}
	req := &pb.PutRequest{Key: []byte("/registry/configmaps/default/" + x.Metadata.Name), Value: []byte(tag)}
	rec, m := o.begin(verb, req)
	var got object
	outcome, err := o.ask(m, verb, path, x, &got)
	delete(o.known, x.Metadata.Name)
	if outcome == history.OK {
		o.known[x.Metadata.Name] = got.Metadata.ResourceVersion
	}
	o.count(rec.Return(&pb.PutResponse{Header: versionOf(got.Metadata.ResourceVersion)}, outcome, err))
}

// remove deletes an object if it is as it was seen. The answer has no revision; the
// request's place tells it.
func (o *objects) remove(name string) {
	version := o.known[name]
	delete(o.known, name)
	req := &pb.DeleteRangeRequest{Key: []byte("/registry/configmaps/default/" + name), RangeEnd: []byte(version)}
	rec, m := o.begin(http.MethodDelete, req)
	outcome, err := o.ask(m, http.MethodDelete, "/"+name, map[string]any{"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": objectMeta{ResourceVersion: version}}, nil)
	o.count(rec.Return(&pb.DeleteRangeResponse{Header: &pb.ResponseHeader{}}, outcome, err))
}

// list reads all objects: as of now, or, of version 0, as the member's cache has
// them. nil: there is no answer.
func (o *objects) list(version string) *pb.RangeResponse {
	req := &pb.RangeRequest{Key: []byte(objectsPrefix), RangeEnd: []byte(objectsEnd), Serializable: version != ""}
	rec, m := o.begin(http.MethodGet, req)
	var got struct {
		Metadata objectMeta `json:"metadata"`
		Items    []object   `json:"items"`
	}
	outcome, err := o.ask(m, http.MethodGet, "?resourceVersion="+version, nil, &got)
	resp := &pb.RangeResponse{Header: versionOf(got.Metadata.ResourceVersion)}
	if outcome == history.OK {
		clear(o.known)
	}
	for _, x := range got.Items {
		if !x.ofLoad() {
			continue
		}
		o.known[x.Metadata.Name] = x.Metadata.ResourceVersion
		resp.Kvs = append(resp.Kvs, x.short())
	}
	resp.Count = int64(len(resp.Kvs))
	if o.count(rec.Return(resp, outcome, err)).Outcome != history.OK {
		return nil
	}
	return resp
}

// ofLoad: others are the cluster's own.
func (x object) ofLoad() bool { return strings.HasPrefix(x.Metadata.Name, "chaos-") }

// short is as much of the stored object as its reader knows.
func (x object) short() *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: []byte("/registry/configmaps/default/" + x.Metadata.Name), Value: []byte(x.Data["tag"]), ModRevision: versionOf(x.Metadata.ResourceVersion).Revision,
	}
}

func versionOf(text string) *pb.ResponseHeader {
	rev, _ := strconv.ParseInt(text, 10, 64) // none: 0
	return &pb.ResponseHeader{Revision: rev}
}

// resourceMethod begins the methods of these calls.
const resourceMethod = "resource/"

func (o *objects) begin(verb string, req proto.Message) (*history.Call, *Member) {
	m := o.member()
	return o.rec.Call(o.n, m.ID, m.Name, resourceMethod+verb, req), m
}

// ask makes one call. What a member refuses has no effect; any other failure may
// have had one.
func (o *objects) ask(m *Member, verb, path string, body, answer any) (history.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var send io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return history.Refused, err
		}
		send = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, verb, m.resourceURL()+objectsPath+path, send)
	if err != nil {
		return history.Refused, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := o.http.Do(req)
	if err != nil {
		return history.Unknown, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return history.Unknown, err
	case resp.StatusCode >= 500:
		return history.Unknown, fmt.Errorf("%s: %s", resp.Status, text)
	case resp.StatusCode >= 300:
		return history.Refused, fmt.Errorf("%s: %s", resp.Status, text)
	case answer == nil:
		return history.OK, nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return history.Unknown, fmt.Errorf("an answer that is no object: %w", err)
	}
	return history.OK, nil
}

// tagIn finds the tag in a stored object.
var tagIn = regexp.MustCompile(`"data":\{"tag":"([0-9]+:[0-9]+)"\}`)

// written is what the caller of a method wrote into a stored value: a client of the
// Kubernetes API its tag.
func written(method, value string) string {
	if found := tagIn.FindStringSubmatch(value); strings.HasPrefix(method, resourceMethod) && found != nil {
		return found[1]
	}
	return value
}

// attribute puts the log's transactions in the place of the writes that clients
// asked for in short. What members write by themselves is theirs, and so is what
// came too late for its comparisons and was tried again.
func attribute(h *history.History) {
	tagged, deletes := map[string]*history.Op{}, map[string]*history.Op{}
	var lists []*history.Op
	for _, op := range h.Ops {
		if !strings.HasPrefix(op.Method, resourceMethod) {
			continue
		}
		switch r := op.Request.(type) {
		case *pb.PutRequest:
			tagged[string(r.Value)] = op
		case *pb.DeleteRangeRequest:
			name := string(r.Key) + "@" + string(r.RangeEnd)
			if was := deletes[name]; was == nil || chance[op.Outcome] > chance[was.Outcome] {
				deletes[name] = op // of several that are about one revision
			}
		case *pb.RangeRequest:
			lists = append(lists, op)
		}
	}
	if len(tagged) == 0 {
		return // there were no such clients
	}
	m := oracle.NewModel()
	for i, e := range h.Log {
		for j := range e.Commands {
			c := &h.Log[i].Commands[j]
			r := m.Apply(e.Term, *c)
			txn, ok := c.Request.(*pb.TxnRequest)
			if !ok || !ofLayer(txn) {
				continue
			}
			op := askedBy(txn, tagged, deletes)
			resp, succeeded := r.Response.(*pb.TxnResponse)
			if op == nil || !succeeded || !resp.Succeeded {
				c.Own = true
				continue
			}
			told := op.Revision()
			if _, deleted := op.Request.(*pb.DeleteRangeRequest); deleted {
				told = r.Rev
			}
			op.Request = txn
			if op.Outcome == history.OK {
				op.Response = &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: told, MemberId: op.Member}, Succeeded: true, Responses: resp.Responses}
			}
		}
	}
	for _, op := range lists {
		if op.Outcome == history.OK {
			complete(m, op)
		}
	}
	completeWatches(m, h.Watches)
}

// chance orders calls by how likely a deletion is theirs.
var chance = map[history.Outcome]int{history.OK: 2, history.Unknown: 1}

// ofLayer reports that a transaction is one of the layer, which keeps everything
// below one prefix.
func ofLayer(txn *pb.TxnRequest) bool {
	for _, op := range txn.Success {
		key := op.GetRequestPut().GetKey()
		if del := op.GetRequestDeleteRange(); del != nil {
			key = del.Key
		}
		if bytes.HasPrefix(key, []byte("/registry/")) {
			return true
		}
	}
	return false
}

// askedBy is the call that a transaction serves; nil: nobody's.
func askedBy(txn *pb.TxnRequest, tagged, deletes map[string]*history.Op) *history.Op {
	for _, op := range txn.Success {
		if put := op.GetRequestPut(); put != nil {
			if found := tagIn.FindSubmatch(put.Value); found != nil {
				return tagged[string(found[1])]
			}
		}
		if del := op.GetRequestDeleteRange(); del != nil {
			for _, c := range txn.Compare {
				if bytes.Equal(c.Key, del.Key) && c.Target == pb.Compare_MOD {
					return deletes[fmt.Sprintf("%s@%d", del.Key, c.GetModRevision())]
				}
			}
		}
	}
	return nil
}

// complete gives a list what its client was not told of each object, if what it was
// told is so.
func complete(m *oracle.Model, op *history.Op) {
	resp := op.Response.(*pb.RangeResponse)
	is := map[string]*mvccpb.KeyValue{}
	for _, kv := range m.Range(op.Request.(*pb.RangeRequest), op.Revision()).Kvs {
		is[string(kv.Key)] = kv
	}
	slices.SortFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	for i, kv := range resp.Kvs {
		found := is[string(kv.Key)]
		if found == nil || found.ModRevision != kv.ModRevision {
			continue
		}
		if tag := tagIn.FindSubmatch(found.Value); tag != nil && bytes.Equal(tag[1], kv.Value) {
			resp.Kvs[i] = found
		}
	}
}
