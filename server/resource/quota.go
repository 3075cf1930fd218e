package resource

import (
	"context"
	"math/big"

	"github.com/keelson-io/keelson/mvcc"
	"github.com/keelson-io/keelson/server/resource/object"
)

// A quota is charged in the very transaction that stores the object, which compares the
// quota with what was read: creators that run at the same time cannot overshoot
// it together. What charges do not see (a pod that ends, a limit that is new) the
// leader counts anew, from one state of the store and compared in the same way.

func (l *Layer) quotaKind() *Kind {
	return l.catalog.Load().named("v1", "ResourceQuota")
}

// eachQuota calls fn for the quotas that take an object in, and makes the step
// write what fn says is used then.
func (l *Layer) eachQuota(st *step, k *Kind, namespace string, o object.Object, fn func(quota object.Object, takes amounts) (object.Object, error)) error {
	if !k.Namespaced {
		return nil
	}
	tx, err := l.store.Read(0)
	if err != nil {
		return err
	}
	defer tx.Release()
	quotas, err := storedIn(tx, l.quotaKind(), namespace)
	if err != nil || len(quotas) == 0 {
		return err
	}
	takes := usageOf(k, o)
	for _, q := range quotas {
		if !inScopes(k, q.object, o) {
			continue
		}
		used, err := fn(q.object, takes)
		if err != nil {
			return err
		}
		if q.key == k.key(namespace, object.String(o, "metadata", "name")) || object.Equal(used, object.Map(q.object, "status", "used")) {
			continue // itself, or not its business
		}
		object.Set(q.object, used, "status", "used")
		st.rewrite(l.quotaKind(), q)
	}
	return nil
}

// charge makes a step that stores a new object take what it needs of the quotas,
// or refuses.
func (l *Layer) charge(st *step, k *Kind, namespace, name string, o object.Object) error {
	var pod object.Object
	if k.qualified() == "pods" {
		pod = o
	}
	return l.eachQuota(st, k, namespace, o, func(quota object.Object, takes amounts) (object.Object, error) {
		next, why := quotaRefusal(quota, takes, pod)
		if why != "" {
			return nil, forbidden(k, name, why)
		}
		return next, nil
	})
}

// uncharge makes a step that deletes an object give back what it took.
func (l *Layer) uncharge(st *step, k *Kind, namespace string, o object.Object) error {
	return l.eachQuota(st, k, namespace, o, func(quota object.Object, takes amounts) (object.Object, error) {
		return given(quota, takes), nil
	})
}

// recount counts what quotas say is used, and corrects those that are wrong.
func (l *Layer) recount(ctx context.Context) error {
	quotas := l.quotaKind()
	s, err := l.snapshot(ctx, quotas, "")
	if err != nil {
		return err
	}
	for _, e := range s.entries {
		if err := l.recountOne(ctx, e.meta.Namespace, e.meta.Name); err != nil && !isGone(err) {
			return err
		}
	}
	return nil
}

func (l *Layer) recountOne(ctx context.Context, namespace, name string) error {
	quotas := l.quotaKind()
	key := quotas.key(namespace, name)
	tx, err := l.store.Read(0)
	if err != nil {
		return err
	}
	defer tx.Release()
	cur, err := readKey(tx, key)
	if err != nil || cur == nil {
		return err
	}
	q, err := cur.decoded(quotas)
	if err != nil {
		return err
	}
	used, err := l.count(tx, q)
	if err != nil {
		return err
	}
	hard := object.Map(q, "spec", "hard")
	if object.Equal(used, object.Map(q, "status", "used")) && object.Equal(hard, object.Map(q, "status", "hard")) {
		return nil
	}
	object.Set(q, used, "status", "used")
	object.Set(q, object.Copy(hard), "status", "hard")
	// If the quota was charged meanwhile the count is old: another round counts again.
	_, err = l.commit(ctx, key, cur, &step{store: q, lease: cur.lease}, encodeStored(quotas, q))
	return err
}

// count adds up what the objects of a quota's namespace take, in one state.
func (l *Layer) count(tx *mvcc.ReadTxn, q object.Object) (object.Object, error) {
	hard := object.Map(q, "spec", "hard")
	sum := amounts{}
	for resource := range hard {
		sum[resource] = new(big.Rat)
	}
	namespace := object.String(q, "metadata", "namespace")
	for _, k := range l.catalog.Load().collections() {
		if !k.Namespaced || !counts(k, hard) {
			continue
		}
		prefix := k.key(namespace, "")
		var failed error
		tx.Scan([]byte(prefix), prefixEnd(prefix), func(it mvcc.Item) bool {
			cur, err := readKey(tx, string(it.Key))
			if err != nil {
				failed = err
				return false
			}
			o, err := cur.decoded(k)
			if err != nil {
				return true
			}
			if inScopes(k, q, o) {
				for resource, n := range usageOf(k, o) {
					if sum[resource] != nil {
						sum.add(resource, n)
					}
				}
			}
			return true
		})
		if failed != nil {
			return nil, failed
		}
	}
	used := object.Object{}
	for resource, n := range sum {
		used[resource] = formatQuantity(n, object.Text(hard[resource]))
	}
	return used, nil
}

// counts reports whether a quota may be about a kind.
func counts(k *Kind, hard object.Object) bool {
	return hard["count/"+k.qualified()] != nil || k.Group == "" && countedByName[k.Plural]
}
