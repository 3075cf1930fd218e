package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/keelson-io/keelson/api"
	"github.com/keelson-io/keelson/client"
	"github.com/keelson-io/keelson/server"
)

// secure turns authentication on: root may do all, ann may read /r/.
func secure(ctx context.Context, a client.Auth) error {
	return errors.Join(
		a.AddUser(ctx, "root", "secret"),
		a.AddRole(ctx, "root"),
		a.GrantRole(ctx, "root", "root"),
		a.AddUser(ctx, "ann", "ann's"),
		a.AddRole(ctx, "reader"),
		a.Grant(ctx, "reader", client.Permission{Access: client.MayRead, Keys: client.Prefix("/r/")}),
		a.GrantRole(ctx, "ann", "reader"),
		a.Enable(ctx),
	)
}

func TestAuth(t *testing.T) { bothWays(t, testAuth) }

func testAuth(t *testing.T, open func(client.Config) *client.Client) {
	m := startMember(t, func(c *server.Config) { c.BcryptCost = 4 })
	c := open(client.Config{Endpoints: []string{m.addr}})
	ctx := testContext(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(secure(ctx, c.Auth()))
	if _, err := c.Put(ctx, "/r/a", nil); !errors.Is(err, api.ErrUserEmpty) || errors.Is(err, client.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	if _, err := open(client.Config{Endpoints: []string{m.addr}, Username: "ann", Password: "no"}).Get(ctx, "/r/a"); !errors.Is(err, api.ErrAuthFailed) {
		t.Fatal(err)
	}
	seen := &recorder{}
	root := open(client.Config{Endpoints: []string{m.addr}, Username: "root", Password: "secret"})
	ann := open(client.Config{Endpoints: []string{m.addr}, Username: "ann", Password: "ann's", Observer: seen})
	if _, err := root.Put(ctx, "/r/a", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if _, err := ann.Get(ctx, "/r/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := ann.Put(ctx, "/r/a", nil); !errors.Is(err, api.ErrPermissionDenied) || errors.Is(err, client.ErrUnknownOutcome) {
		t.Fatal(err)
	}
	for _, err := range ann.Watch(ctx, client.All()) {
		if !errors.Is(err, api.ErrPermissionDenied) {
			t.Fatal(err)
		}
	}
	// A token that ended is replaced: here by a password change back and forth.
	must(root.Auth().ChangePassword(ctx, "ann", "other"))
	must(root.Auth().ChangePassword(ctx, "ann", "ann's"))
	for ev, err := range ann.Watch(ctx, client.Prefix("/r/"), client.After(1)) {
		if err != nil || string(ev.KV.Value) != "v" {
			t.Fatal(ev, err)
		}
		break
	}
	if _, err := ann.Get(ctx, "/r/a"); err != nil {
		t.Fatal(err)
	}
	if seen.count(client.NoticeToken) == 0 {
		t.Error("no token was replaced: the test shows nothing")
	}
	if roles, err := root.Auth().User(ctx, "ann"); err != nil || fmt.Sprint(roles) != "[reader]" {
		t.Error(roles, err)
	}
	if list, err := root.Auth().Role(ctx, "reader"); err != nil || len(list) != 1 || list[0].Keys != client.Prefix("/r/") || list[0].Access != client.MayRead {
		t.Error(list, err)
	}
	if users, err := root.Auth().Users(ctx); err != nil || len(users) != 2 {
		t.Error(users, err)
	}
	if on, _, err := root.Auth().Status(ctx); err != nil || !on {
		t.Error(on, err)
	}
	must(root.Auth().RevokeGrant(ctx, "reader", client.Prefix("/r/")))
	must(root.Auth().RevokeRole(ctx, "ann", "reader"))
	must(root.Auth().DeleteRole(ctx, "reader"))
	must(root.Auth().DeleteUser(ctx, "ann"))
	must(root.Auth().Disable(ctx))
	if roles, err := c.Auth().Roles(ctx); err != nil || len(roles) != 1 {
		t.Error(roles, err)
	}
}

func TestMaintenance(t *testing.T) {
	m := startMember(t)
	p := newProxy(t, m.addr)
	c := open(t, client.Config{Endpoints: []string{m.addr, p.addr()}})
	ctx := testContext(t)
	fill(ctx, t, c, 300, 1000)
	members, err := c.Cluster().Members(ctx)
	if err != nil || len(members) != 1 {
		t.Fatal(members, err)
	}
	s, err := c.Maintenance().Status(ctx, m.addr)
	if err != nil || s.Leader != members[0].ID {
		t.Fatal(s, err)
	}
	if _, err := c.Maintenance().Status(ctx, "nowhere:1"); err == nil {
		t.Error("asked an endpoint that the client does not have")
	}
	if err := c.Maintenance().Defragment(ctx, m.addr); err != nil {
		t.Error(err)
	}
	if list, err := c.Maintenance().Alarms(ctx); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	if h, err := c.Maintenance().HashKV(ctx, m.addr, 0); err != nil || h.Hash == 0 {
		t.Error(h, err)
	}
	var b bytes.Buffer
	info, err := c.Maintenance().Snapshot(ctx, "", &b)
	if err != nil || info.Size != int64(b.Len()) || info.Version != s.StorageVersion {
		t.Fatal(info, err)
	}
	db := b.Bytes()[:b.Len()-sha256.Size]
	if sum := sha256.Sum256(db); !bytes.Equal(sum[:], b.Bytes()[len(db):]) {
		t.Error("the hash at the end is wrong")
	}
	flip := func(piece []byte) bool {
		if len(piece) > 1000 { // the answer, not its frame
			piece[len(piece)/2] ^= 1
		}
		return true
	}
	p.answers.Store(&flip)
	if _, err := c.Maintenance().Snapshot(ctx, p.addr(), &b); err == nil {
		t.Error("damage on the way was not noticed")
	} else if errors.Is(err, client.ErrUnknownOutcome) {
		t.Error(err)
	}
	if err := c.Cluster().Sync(ctx); err != nil || len(c.Endpoints()) != 1 {
		t.Error(c.Endpoints(), err)
	}
	if _, err := c.Get(ctx, "/k/000001"); err != nil {
		t.Error(err)
	}
}

// TestAtomically: money that many move between accounts is neither lost nor made.
func TestAtomically(t *testing.T) { bothWays(t, testAtomically) }

func testAtomically(t *testing.T, open func(client.Config) *client.Client) {
	c := open(client.Config{Endpoints: []string{startMember(t).addr}})
	ctx := testContext(t)
	const accounts = 4
	name := func(i int) string { return fmt.Sprint("/account/", i%accounts) }
	for i := range accounts {
		put(ctx, t, c, name(i), 100)
	}
	read := func(tx *client.Tx, key string) (n int, err error) {
		kv, err := tx.Get(key)
		if err == nil {
			_, err = fmt.Sscan(string(kv.Value), &n)
		}
		return n, err
	}
	var wait sync.WaitGroup
	for w := range 6 {
		wait.Go(func() {
			for i := range 15 {
				_, err := c.Atomically(ctx, func(tx *client.Tx) error {
					from, to := name(w+i), name(w+2*i+1)
					a, err := read(tx, from)
					if err != nil {
						return err
					}
					tx.Put(from, fmt.Append(nil, a-1))
					b, err := read(tx, to) // which may be the same account
					if err != nil {
						return err
					}
					tx.Put(to, fmt.Append(nil, b+1))
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	sum := 0
	rev, err := c.Atomically(ctx, func(tx *client.Tx) error {
		sum = 0
		for i := range accounts {
			n, err := read(tx, name(i))
			if err != nil {
				return err
			}
			sum += n
		}
		return nil
	})
	if err != nil || rev == 0 || sum != accounts*100 {
		t.Errorf("%d at revision %d, %v", sum, rev, err)
	}
	if _, err := c.Atomically(ctx, func(tx *client.Tx) error { tx.Delete(name(0)); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, name(0)); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
}
