package resource

import (
	"errors"
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/keelson-io/keelson/server/resource/object"
)

// Cluster IPs of Services. An address that is taken is an IPAddress object under
// its name, as a kube-apiserver keeps it, which is written and deleted in the very
// transaction that writes the Service: two Services never have one address, and none
// is lost.

// headless is the cluster IP of a Service that has none.
const headless = "None"

// address makes a step that stores a Service give it what it needs of addresses,
// and give back what it needs no more. old is nil for a new one. It changes o.
func (l *Layer) address(st *step, k *Kind, old, o object.Object) error {
	if k.qualified() != "services" {
		return nil
	}
	had, wants := clusterIP(old), clusterIP(o)
	switch {
	case object.String(o, "spec", "type") == "ExternalName":
		for _, name := range []string{"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"} {
			object.Remove(o, "spec", name)
		}
		return l.freeAddress(st, had)
	case had != "" && wants != "" && had != wants:
		return invalid(k, object.String(o, "metadata", "name"), causeOf(field.Invalid(field.NewPath("spec", "clusterIPs").Index(0),
			[]string{wants}, "may not change once set")))
	case had != "":
		object.Set(o, had, "spec", "clusterIP")
		object.Set(o, []any{had}, "spec", "clusterIPs")
	case wants != headless:
		if err := l.takeAddress(st, k, o, wants); err != nil {
			return err
		}
	default:
		object.Set(o, []any{headless}, "spec", "clusterIPs")
	}
	object.Default(o, "Cluster", "spec", "internalTrafficPolicy")
	policy, families := "SingleStack", []any{"IPv4"}
	if wants == headless && len(object.Map(o, "spec", "selector")) == 0 {
		policy, families = "RequireDualStack", []any{"IPv4", "IPv6"}
	}
	object.Default(o, policy, "spec", "ipFamilyPolicy")
	object.Default(o, families, "spec", "ipFamilies")
	return nil
}

// clusterIP is what a Service has, or asks for, in either of its fields.
func clusterIP(o object.Object) string {
	if ip := object.String(o, "spec", "clusterIP"); ip != "" {
		return ip
	}
	for _, ip := range object.Strings(o, "spec", "clusterIPs") {
		return ip
	}
	return ""
}

// takeAddress takes the address that a Service asks for; empty: any that is free.
func (l *Layer) takeAddress(st *step, k *Kind, o object.Object, wanted string) error {
	addresses := l.catalog.Load().named("networking.k8s.io/v1", "IPAddress")
	name := object.String(o, "metadata", "name")
	if wanted == "" {
		ip, err := l.freeIP(addresses)
		if err != nil {
			return fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", name, err)
		}
		wanted = ip.String()
	} else if why := l.refuseAddress(addresses, wanted); why != "" {
		return invalid(k, name, causeOf(field.Invalid(field.NewPath("spec", "clusterIPs"), []string{wanted}, "failed to allocate IP "+wanted+": "+why)))
	}
	object.Set(o, wanted, "spec", "clusterIP")
	object.Set(o, []any{wanted}, "spec", "clusterIPs")
	taken, err := prepareCreate(addresses, object.Object{
		"apiVersion": addresses.APIVersion(), "kind": addresses.Name,
		"metadata": object.Object{"name": wanted, "labels": object.Object{
			"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
		"spec": object.Object{"parentRef": object.Object{"group": "", "resource": "services",
			"namespace": object.String(o, "metadata", "namespace"), "name": name}},
	}, l.newUID(), l.clock.Now(), nil)
	if err != nil {
		return err
	}
	st.rewrite(addresses, storedObject{addresses.key("", wanted), 0, taken})
	return nil
}

// freeAddress makes a step give an address back.
func (l *Layer) freeAddress(st *step, ip string) error {
	if ip == "" || ip == headless {
		return nil
	}
	key := l.catalog.Load().named("networking.k8s.io/v1", "IPAddress").key("", ip)
	have, err := l.local(key)
	if have != nil {
		st.guards = append(st.guards, guard{key, have.rev})
		st.also = append(st.also, also{key: key})
	}
	return err
}

func (l *Layer) refuseAddress(addresses *Kind, text string) string {
	ip, err := netip.ParseAddr(text)
	if err != nil || !l.cfg.ServiceIPs.Contains(ip) {
		return fmt.Sprintf("the provided IP (%s) is not in the valid range. The range of valid IPs is %s", text, l.cfg.ServiceIPs)
	}
	if have, err := l.local(addresses.key("", text)); err == nil && have != nil {
		return "provided IP is already allocated"
	}
	return ""
}

// freeIP draws an address that nobody has. The lower part of the range is drawn
// from last: people who choose addresses themselves choose small ones.
func (l *Layer) freeIP(addresses *Kind) (netip.Addr, error) {
	tx, err := l.store.Read(0)
	if err != nil {
		return netip.Addr{}, err
	}
	defer tx.Release()
	base := l.cfg.ServiceIPs.Masked().Addr().As4()
	first := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
	size := uint32(1) << (32 - l.cfg.ServiceIPs.Bits())
	low := min(max(16, size/16), 256, size/2) // chosen by people, as in a kube-apiserver
	upper := size - 1 - low                   // without the broadcast address
	at := func(i uint32) netip.Addr {
		n := first + i
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	begin := uint32(l.random64() % uint64(upper))
	for i := range size - 2 { // neither the network's address nor the broadcast one
		n := low + (begin+i)%upper
		if i >= upper {
			n = low - 1 - (i - upper)
		}
		ip := at(n)
		if _, taken := tx.Get([]byte(addresses.key("", ip.String()))); !taken {
			return ip, nil
		}
	}
	return netip.Addr{}, errRangeFull
}

var errRangeFull = errors.New("range is full")
