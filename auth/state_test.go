package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/mvcc/engine"
)

// world is a state with the rows that would be on disk. Invariant: the rows load
// to a state that decides as the state in memory.
type world struct {
	t    *testing.T
	s    *State
	rows map[engine.Bucket]map[string][]byte
}

func newWorld(t *testing.T) *world {
	return &world{t: t, s: Empty(), rows: map[engine.Bucket]map[string][]byte{engine.Auth: {}, engine.AuthUsers: {}, engine.AuthRoles: {}}}
}

// apply takes what a change returns and checks its effect on the revision.
func (w *world) apply(next *State, rows []engine.Op, err error) error {
	w.t.Helper()
	if err != nil {
		if next != nil || rows != nil {
			w.t.Fatalf("a refused change (%v) returns a state", err)
		}
		return err
	}
	for _, op := range rows {
		if op.Value == nil {
			delete(w.rows[op.Bucket], string(op.Key))
		} else {
			w.rows[op.Bucket][string(op.Key)] = op.Value
		}
	}
	w.s = next
	return nil
}

func (w *world) must(next *State, rows []engine.Op, err error) {
	w.t.Helper()
	if err := w.apply(next, rows, err); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) load() *State {
	w.t.Helper()
	s, err := Load(func(b engine.Bucket, fn func(k, v []byte) bool) {
		for k, v := range w.rows[b] {
			if !fn([]byte(k), v) {
				return
			}
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func hashed(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func (w *world) user(name string, roles ...string) {
	w.t.Helper()
	w.must(w.s.UserAdd(&pb.AuthUserAddRequest{Name: name, HashedPassword: hashed("hash of " + name)}))
	for _, r := range roles {
		w.must(w.s.UserGrantRole(&pb.AuthUserGrantRoleRequest{User: name, Role: r}))
	}
}

func (w *world) grant(role, key, end string, kind authpb.Permission_Type) {
	w.t.Helper()
	w.must(w.s.RoleGrantPermission(&pb.AuthRoleGrantPermissionRequest{
		Name: role, Perm: &authpb.Permission{Key: []byte(key), RangeEnd: []byte(end), PermType: kind},
	}))
}

// TestRefusals: every refusal, in etcd's order.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	expect := func(want error, next *State, rows []engine.Op, err error) {
		t.Helper()
		if got := w.apply(next, rows, err); !errors.Is(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	check := func(want error) func(*State, []engine.Op, error) {
		return func(next *State, rows []engine.Op, err error) { t.Helper(); expect(want, next, rows, err) }
	}
	check(api.ErrRootUserNotExist)(w.s.Enable(nil))
	check(api.ErrUserEmpty)(w.s.UserAdd(&pb.AuthUserAddRequest{}))
	check(api.ErrNoPasswordUser)(w.s.UserAdd(&pb.AuthUserAddRequest{Name: "x", HashedPassword: "no base64!"}))
	check(api.ErrRequestTooLarge)(w.s.UserAdd(&pb.AuthUserAddRequest{Name: string(make([]byte, maxName+1))}))
	check(nil)(w.s.UserAdd(&pb.AuthUserAddRequest{Name: "root", HashedPassword: hashed("r")}))
	check(api.ErrUserExists)(w.s.UserAdd(&pb.AuthUserAddRequest{Name: "root"}))
	check(api.ErrRootRoleNotExist)(w.s.Enable(nil))
	check(api.ErrUserNotFound)(w.s.UserDelete(&pb.AuthUserDeleteRequest{Name: "x"}))
	check(api.ErrUserNotFound)(w.s.UserChangePassword(&pb.AuthUserChangePasswordRequest{Name: "x"}))
	check(api.ErrNoPasswordUser)(w.s.UserChangePassword(&pb.AuthUserChangePasswordRequest{Name: "root", HashedPassword: "?"}))
	check(api.ErrUserNotFound)(w.s.UserGrantRole(&pb.AuthUserGrantRoleRequest{User: "x", Role: "nope"}))
	check(api.ErrRoleNotFound)(w.s.UserGrantRole(&pb.AuthUserGrantRoleRequest{User: "root", Role: "nope"}))
	check(api.ErrUserNotFound)(w.s.UserRevokeRole(&pb.AuthUserRevokeRoleRequest{Name: "x", Role: "nope"}))
	check(api.ErrRoleNotGranted)(w.s.UserRevokeRole(&pb.AuthUserRevokeRoleRequest{Name: "root", Role: "nope"}))
	check(api.ErrRoleEmpty)(w.s.RoleAdd(&pb.AuthRoleAddRequest{}))
	check(nil)(w.s.RoleAdd(&pb.AuthRoleAddRequest{Name: "r"}))
	check(api.ErrRoleExists)(w.s.RoleAdd(&pb.AuthRoleAddRequest{Name: "r"}))
	check(api.ErrRoleNotFound)(w.s.RoleDelete(&pb.AuthRoleDeleteRequest{Role: "nope"}))
	check(api.ErrPermissionNotGiven)(w.s.RoleGrantPermission(&pb.AuthRoleGrantPermissionRequest{Name: "nope"}))
	check(api.ErrInvalidAuthMgmt)(w.s.RoleGrantPermission(&pb.AuthRoleGrantPermissionRequest{Name: "nope", Perm: &authpb.Permission{Key: []byte("b"), RangeEnd: []byte("a")}}))
	check(api.ErrInvalidAuthMgmt)(w.s.RoleGrantPermission(&pb.AuthRoleGrantPermissionRequest{Name: "nope", Perm: &authpb.Permission{}}))
	check(api.ErrRoleNotFound)(w.s.RoleGrantPermission(&pb.AuthRoleGrantPermissionRequest{Name: "nope", Perm: &authpb.Permission{Key: []byte("a")}}))
	check(api.ErrRoleNotFound)(w.s.RoleRevokePermission(&pb.AuthRoleRevokePermissionRequest{Role: "nope"}))
	check(api.ErrPermissionNotGranted)(w.s.RoleRevokePermission(&pb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("a")}))

	w.must(w.s.UserGrantRole(&pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})) // need not be stored
	rev := w.s.Revision
	w.must(w.s.UserGrantRole(&pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}))
	w.must(w.s.Disable())
	w.must(w.s.Enable([]byte("secret")))
	w.must(w.s.Enable([]byte("another")))
	if w.s.Revision != rev || string(w.s.Secret()) != "secret" {
		t.Errorf("what changes nothing counts: revision %d, want %d, secret %q", w.s.Revision, rev, w.s.Secret())
	}
	check(api.ErrInvalidAuthMgmt)(w.s.UserDelete(&pb.AuthUserDeleteRequest{Name: "root"}))
	check(api.ErrInvalidAuthMgmt)(w.s.UserRevokeRole(&pb.AuthUserRevokeRoleRequest{Name: "root", Role: "root"}))
	check(api.ErrInvalidAuthMgmt)(w.s.RoleDelete(&pb.AuthRoleDeleteRequest{Role: "root"}))
	w.must(w.s.Disable())
	if w.s.Revision != rev+1 || w.s.Secret() != nil || w.load().Secret() != nil {
		t.Errorf("after disable: revision %d, want %d, secret %q", w.s.Revision, rev+1, w.s.Secret())
	}
	check(nil)(w.s.UserDelete(&pb.AuthUserDeleteRequest{Name: "root"}))
}

// TestQuestions: who may do what, and which refusal it is.
func TestQuestions(t *testing.T) {
	w := newWorld(t)
	for _, r := range []string{"reader", "writer"} {
		w.must(w.s.RoleAdd(&pb.AuthRoleAddRequest{Name: r}))
	}
	w.user("root", "root")
	w.user("ann", "reader", "writer")
	w.grant("reader", "a", "c", authpb.Permission_READ)
	w.grant("reader", "c", "e", authpb.Permission_READ)
	w.grant("writer", "b", "", authpb.Permission_READWRITE)
	nobody := Principal{}
	if w.s.MayRead(nobody, []byte("z"), nil) != nil || w.s.MayAdminister(nobody) != nil || w.s.MustBeKnown(nobody) != nil {
		t.Error("authentication is off, and somebody is refused")
	}
	w.must(w.s.Enable([]byte("secret")))
	now := w.s.Revision
	for _, s := range []*State{w.s, w.load()} {
		ann, root := Principal{"ann", now}, Principal{"root", now}
		old, gone := Principal{"ann", now - 1}, Principal{"gone", now}
		for _, c := range []struct {
			name string
			got  error
			want error
		}{
			{"nobody reads", s.MayRead(nobody, []byte("a"), nil), api.ErrUserEmpty},
			{"nobody administers", s.MayAdminister(nobody), api.ErrUserEmpty},
			{"nobody is known", s.MustBeKnown(nobody), api.ErrUserEmpty},
			{"old", s.MayRead(old, []byte("a"), nil), api.ErrAuthOldRevision},
			{"old administers", s.MayAdminister(old), api.ErrPermissionDenied},
			{"gone reads", s.MayRead(gone, []byte("a"), nil), api.ErrPermissionDenied},
			{"gone administers", s.MayAdminister(gone), api.ErrUserNotFound},
			{"read", s.MayRead(ann, []byte("a"), nil), nil},
			{"read over two ranges", s.MayRead(ann, []byte("a"), []byte("e")), nil},
			{"read beyond", s.MayRead(ann, []byte("a"), []byte("e\x00")), api.ErrPermissionDenied},
			{"read nothing", s.MayRead(ann, []byte("a"), []byte("a")), nil},
			{"read backwards", s.MayRead(ann, []byte("b"), []byte("0")), nil},
			{"read backwards from beyond", s.MayRead(ann, []byte("x"), []byte("b")), api.ErrPermissionDenied},
			{"read all", s.MayRead(ann, []byte("a"), []byte{0}), api.ErrPermissionDenied},
			{"write the key", s.MayWrite(ann, []byte("b"), nil), nil},
			{"write the key as a range", s.MayWrite(ann, []byte("b"), []byte("b\x00")), nil},
			{"write beside it", s.MayWrite(ann, []byte("a"), nil), api.ErrPermissionDenied},
			{"write from it on", s.MayWrite(ann, []byte("b"), []byte{0}), api.ErrPermissionDenied},
			{"root", s.MayWrite(root, []byte{0}, []byte{0}), nil},
			{"root administers", s.MayAdminister(root), nil},
			{"fresh", s.Fresh(ann), nil},
			{"not fresh", s.Fresh(old), api.ErrAuthOldRevision},
			{"nobody is fresh", s.Fresh(nobody), nil},
		} {
			if c.got != c.want && !errors.Is(c.got, c.want) {
				t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
			}
		}
	}
	w.must(w.s.RoleDelete(&pb.AuthRoleDeleteRequest{Role: "writer"}))
	if err := w.s.MayWrite(Principal{"ann", w.s.Revision}, []byte("b"), nil); err != error(api.ErrPermissionDenied) {
		t.Errorf("a deleted role still permits: %v", err)
	}
	if roles, _ := w.load().RolesOf("ann"); !slices.Equal(roles, []string{"reader"}) {
		t.Errorf("roles on disk are %q", roles)
	}
}

// TestSpansAgainstKeys: a range is covered exactly if each of its keys is, in a
// small world where all keys can be tried.
func TestSpansAgainstKeys(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var world [][]byte // all keys of up to three letters of a small alphabet
	letters := []byte{0, 1, 'a', 0xff}
	for _, a := range letters {
		world = append(world, []byte{a})
		for _, b := range letters {
			world = append(world, []byte{a, b})
			for _, c := range letters {
				world = append(world, []byte{a, b, c})
			}
		}
	}
	slices.SortFunc(world, bytes.Compare)
	holds := func(s span, k []byte) bool {
		return bytes.Compare(k, s.from) >= 0 && (s.to == nil || bytes.Compare(k, s.to) < 0)
	}
	pick := func() []byte { return world[rng.IntN(len(world))] }
	anyEnd := func() []byte {
		return [][]byte{nil, {0}, pick(), pick()}[rng.IntN(4)]
	}
	for range 20000 {
		var list spans
		for range rng.IntN(4) {
			if key, end := pick(), anyEnd(); validRange(key, end) {
				list = append(list, spanOf(key, end))
			}
		}
		given := slices.Clone(list)
		m := merged(list)
		want := spanOf(pick(), anyEnd())
		if want.to != nil && bytes.Compare(want.from, want.to) >= 0 {
			continue
		}
		if m.cover(want) {
			for _, k := range world {
				if holds(want, k) && !slices.ContainsFunc(given, func(s span) bool { return holds(s, k) }) {
					t.Fatalf("%q covers %q, but not the key %q", given, want, k)
				}
			}
			continue
		}
		// Some key is missing. It need not be in the small world, but if every key
		// of it and the key after each is permitted, nothing is missing.
		missing := false
		edges := append(slices.Clone(world), want.from)
		for _, s := range given {
			if s.to != nil {
				edges = append(edges, s.to)
			}
		}
		for _, k := range edges {
			missing = missing || holds(want, k) && !slices.ContainsFunc(given, func(s span) bool { return holds(s, k) })
		}
		if !missing {
			t.Fatalf("%q does not cover %q, but no key is missing", given, want)
		}
	}
}

func TestPrincipalTravels(t *testing.T) {
	for _, p := range []Principal{{}, {"ann", 1}, {"", 7}, {"a b 12 ", 1 << 63}} {
		if got := ParsePrincipal(p.String()); got != p {
			t.Errorf("%+v arrives as %+v", p, got)
		}
	}
	for _, s := range []string{"", "ann", "x ann", "-1 ann", "12", fmt.Sprint(1<<62, "9999999999 ann")} {
		if got := ParsePrincipal(s); got.Known() {
			t.Errorf("%q is taken for %+v", s, got)
		}
	}
}

func TestDamagedRowsAreRefused(t *testing.T) {
	for b, k := range map[engine.Bucket]string{engine.Auth: rowRevision, engine.AuthUsers: "u", engine.AuthRoles: "r"} {
		w := newWorld(t)
		w.rows[b][k] = []byte{0xff}
		_, err := Load(func(b engine.Bucket, fn func(k, v []byte) bool) {
			for k, v := range w.rows[b] {
				fn([]byte(k), v)
			}
		})
		if err == nil {
			t.Errorf("a damaged row of %s is taken", b)
		}
	}
}
