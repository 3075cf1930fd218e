package kinds

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// first is a field of the first element of a list.
func first(r row, list, field string) string {
	if l := r.List(list); len(l) > 0 {
		return or(l[0].Text(field), none)
	}
	return none
}

func clusterIP(r row) string {
	if ips := r.Texts("spec.clusterIPs"); len(ips) > 0 {
		return ips[0]
	}
	return none
}

func externalIP(r row) string {
	ips := r.Texts("spec.externalIPs")
	switch r.Text("spec.type") {
	case "ClusterIP", "NodePort":
		return or(strings.Join(ips, ","), none)
	case "LoadBalancer":
		if lb := loadBalancer(r); lb != "" {
			ips = append([]string{lb}, ips...)
		}
		return or(strings.Join(ips, ","), "<pending>")
	case "ExternalName":
		return r.Text("spec.externalName")
	}
	return "<unknown>"
}

// loadBalancer prints the addresses of a load balancer, cut short at 16 bytes.
func loadBalancer(r row) string {
	var list []string
	for _, in := range r.List("status.loadBalancer.ingress") {
		if a := or(in.Text("ip"), in.Text("hostname")); a != "" {
			list = append(list, a)
		}
	}
	slices.Sort(list)
	out := strings.Join(slices.Compact(list), ",")
	if !r.wide && len(out) > 16 {
		out = out[:13] + "..."
	}
	return out
}

func servicePorts(r row) string {
	var out []string
	for _, p := range r.List("spec.ports") {
		s := fmt.Sprint(p.Int("port"))
		if n := p.Int("nodePort"); n > 0 {
			s += fmt.Sprintf(":%d", n)
		}
		out = append(out, s+"/"+p.Text("protocol"))
	}
	return or(strings.Join(out, ","), none)
}

func endpoints(r row) string {
	var list []string
	for _, s := range r.List("subsets") {
		ports := s.List("ports")
		for _, a := range s.List("addresses") {
			if len(ports) == 0 {
				list = append(list, a.Text("ip"))
			}
		}
		for _, p := range ports {
			for _, a := range s.List("addresses") {
				list = append(list, net.JoinHostPort(a.Text("ip"), fmt.Sprint(p.Int("port"))))
			}
		}
	}
	return or(few(list, 3, len(list), ","), none)
}

func slicePorts(r row) string {
	var list []string
	for _, p := range r.List("ports") {
		list = append(list, number(p.At("port"), or(p.Text("name"), "*")))
	}
	return or(few(list, 3, len(list), ","), "<unset>")
}

func sliceEndpoints(r row) string {
	var list []string
	for _, e := range r.List("endpoints") {
		list = append(list, e.Texts("addresses")...)
	}
	return or(few(list, 3, len(list), ","), "<unset>")
}

func nodeStatus(r row) string {
	out := "Unknown"
	if c := r.Condition("Ready"); c != nil {
		out = "Ready"
		if c.Text("status") != "True" {
			out = "NotReady"
		}
	}
	if r.Flag("spec.unschedulable") {
		out += ",SchedulingDisabled"
	}
	return out
}

func nodeRoles(r row) string {
	var roles []string
	for label, value := range r.Sub("metadata.labels") {
		if role, ok := strings.CutPrefix(label, "node-role.kubernetes.io/"); ok && role != "" {
			roles = append(roles, role)
		}
		if label == "kubernetes.io/role" && value != "" {
			roles = append(roles, fmt.Sprint(value))
		}
	}
	slices.Sort(roles)
	return or(strings.Join(slices.Compact(roles), ","), none)
}

func nodeAddress(kind string) func(row) string {
	return func(r row) string {
		for _, a := range r.List("status.addresses") {
			if a.Text("type") == kind {
				return a.Text("address")
			}
		}
		return none
	}
}

func kernel(r row) string {
	out := or(r.Text("status.nodeInfo.kernelVersion"), "<unknown>")
	if arch := r.Text("status.nodeInfo.architecture"); arch != "" {
		out += " (" + arch + ")"
	}
	return out
}

// eventColumns are those of an event of the core group, in which all events are
// stored.
func eventColumns() []Column {
	seen := func(r row) string {
		if r.At("firstTimestamp") == nil {
			return r.since("eventTime")
		}
		return r.since("firstTimestamp")
	}
	columns := []Column{
		made("Last Seen", func(r row) string {
			switch {
			case r.At("series") != nil:
				return r.since("series.lastObservedTime")
			case r.At("lastTimestamp") != nil:
				return r.since("lastTimestamp")
			}
			return seen(r)
		}),
		text("Type", "type"), text("Reason", "reason"),
		made("Object", func(r row) string {
			kind, name := strings.ToLower(r.Text("involvedObject.kind")), r.Text("involvedObject.name")
			if name == "" {
				return kind
			}
			return kind + "/" + name
		}),
	}
	columns = append(columns, wide(text("Subobject", "involvedObject.fieldPath"), made("Source", func(r row) string {
		component := or(r.Text("source.component"), r.Text("reportingComponent"))
		if host := or(r.Text("source.host"), r.Text("reportingInstance")); host != "" {
			return component + ", " + host
		}
		return component
	}))...)
	columns = append(columns, made("Message", func(r row) string { return strings.TrimSpace(r.Text("message")) }))
	name := nameColumn
	return append(columns, wide(made("First Seen", seen), Column{"Count", "string", true, func(r row) any {
		if r.At("series") != nil {
			return r.Int("series.count")
		}
		return max(r.Int("count"), 1)
	}}, name)...)
}

// health is how a component of the control plane is.
func health(r row) string {
	switch r.typed("conditions", "Healthy").Text("status") {
	case "":
		return "Unknown"
	case "True":
		return "Healthy"
	}
	return "Unhealthy"
}

// paramRef names the parameters of a policy's binding.
func paramRef(r row) string {
	p := r.Sub("spec.paramRef")
	switch name := p.Text("name"); {
	case name != "":
		return or(p.Text("namespace"), "*") + "/" + name
	case p.Sub("selector") != nil:
		return selector(p.Sub("selector"))
	}
	return "<unset>"
}

func storageVersions(r row) string {
	var out []string
	for _, v := range r.List("status.storageVersions") {
		out = append(out, v.Text("apiServerID")+"="+v.Text("encodingVersion"))
	}
	return or(few(out, 3, len(out), ","), "<unset>")
}

// lastTrue is the last of some conditions that hold.
func lastTrue(nothing string, names ...string) func(row) string {
	return func(r row) string {
		state := nothing
		for _, c := range r.List("status.conditions") {
			if name := c.Text("type"); c.Text("status") == "True" && slices.Contains(names, name) {
				state = name
			}
		}
		return state
	}
}

// claimState is how far a claim of devices has come.
func claimState(r row) string {
	var states []string
	dying := r.At("metadata.deletionTimestamp") != nil
	if dying {
		states = append(states, "deleted")
	}
	switch {
	case r.At("status.allocation") != nil:
		if states = append(states, "allocated"); r.Size("status.reservedFor") > 0 {
			states = append(states, "reserved")
		}
	case !dying:
		states = append(states, "pending")
	}
	return strings.Join(states, ",")
}

// quota prints used and hard amounts, of limits or of all else.
func quota(limits bool) func(row) string {
	return func(r row) string {
		hard, used := r.Sub("status.hard"), r.Sub("status.used")
		var out []string
		for name, amount := range hard {
			if strings.HasPrefix(name, "limits.") == limits {
				out = append(out, fmt.Sprintf("%s: %s/%v", name, number(used[name], "0"), amount))
			}
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
}

func controller(r row) string {
	for _, o := range r.List("metadata.ownerReferences") {
		if o.Flag("controller") {
			kind := strings.ToLower(o.Text("kind"))
			if group, _ := SplitAPIVersion(o.Text("apiVersion")); group != "" {
				kind += "." + group
			}
			return kind + "/" + o.Text("name")
		}
	}
	return none
}

func jobStatus(r row) string {
	is := func(name string) bool { return r.Condition(name).Text("status") == "True" }
	switch {
	case is("Complete"):
		return "Complete"
	case is("Failed"):
		return "Failed"
	case r.At("metadata.deletionTimestamp") != nil:
		return "Terminating"
	}
	for _, name := range []string{"Suspended", "FailureTarget", "SuccessCriteriaMet"} {
		if is(name) {
			return name
		}
	}
	return "Running"
}

func jobCompletions(r row) string {
	done, parallel := r.Int("status.succeeded"), r.Int("spec.parallelism")
	switch {
	case r.At("spec.completions") != nil:
		return fmt.Sprintf("%d/%d", done, r.Int("spec.completions"))
	case parallel > 1:
		return fmt.Sprintf("%d/1 of %d", done, parallel)
	}
	return fmt.Sprintf("%d/1", done)
}

func jobDuration(r row) string {
	start, end := r.Time("status.startTime"), r.Time("status.completionTime")
	switch {
	case start.IsZero():
		return ""
	case end.IsZero():
		end = r.now
	}
	return Age(end.Sub(start))
}

func suspended(r row) string {
	switch {
	case r.At("spec.suspend") == nil:
		return "<unset>"
	case r.Flag("spec.suspend"):
		return "True"
	}
	return "False"
}

// metricTargets prints current and wanted values of an autoscaler's metrics.
func metricTargets(r row) string {
	current := r.List("status.currentMetrics")
	var list []string
	for i, m := range r.List("spec.metrics") {
		kind := m.Text("type")
		if kind == "" {
			continue
		}
		source := strings.ToLower(kind[:1]) + kind[1:]
		want, have := m.Sub(source+".target"), View(nil)
		if i < len(current) {
			have = current[i].Sub(source + ".current")
		}
		s, prefix := "", ""
		if source == "resource" || source == "containerResource" {
			prefix = m.Text(source+".name") + ": "
			if s = want.Text("averageValue"); s == "" {
				s = percent(have, "<unknown>") + "/" + percent(want, "<auto>")
			} else {
				s = or(have.Text("averageValue"), "<unknown>") + "/" + s
			}
		} else if average := want.Text("averageValue"); average != "" {
			if s = or(have.Text("averageValue"), "<unknown>") + "/" + average; source != "pods" {
				s += " (avg)"
			}
		} else {
			s = or(have.Text("value"), "<unknown>") + "/" + want.Text("value")
		}
		list = append(list, prefix+s)
	}
	return or(few(list, 2, len(list), ", "), none)
}

func percent(v View, nothing string) string {
	if v.At("averageUtilization") == nil {
		return nothing
	}
	return fmt.Sprintf("%d%%", v.Int("averageUtilization"))
}

// accessModes prints the modes of a volume by their short names.
func accessModes(path string) func(row) string {
	return func(r row) string {
		modes := r.Texts(path)
		var out []string
		for _, m := range [][2]string{{"ReadWriteOnce", "RWO"}, {"ReadOnlyMany", "ROX"}, {"ReadWriteMany", "RWX"}, {"ReadWriteOncePod", "RWOP"}} {
			if slices.Contains(modes, m[0]) {
				out = append(out, m[1])
			}
		}
		return strings.Join(out, ",")
	}
}

func tokenRequests(r row) string {
	if r.At("spec.tokenRequests") == nil {
		return "<unset>"
	}
	var out []string
	for _, t := range r.List("spec.tokenRequests") {
		out = append(out, t.Text("audience"))
	}
	return strings.Join(out, ",")
}

// subjects prints the subjects of a binding that are of one kind.
func subjects(kind string) func(row) string {
	return func(r row) string {
		var out []string
		for _, s := range r.List("subjects") {
			if s.Text("kind") != kind {
				continue
			}
			name := s.Text("name")
			if kind == "ServiceAccount" {
				name = s.Text("namespace") + "/" + name
			}
			out = append(out, name)
		}
		return strings.Join(out, ", ")
	}
}

func ingressHosts(r row) string {
	rules := r.List("spec.rules")
	var hosts []string
	for _, rule := range rules {
		if h := rule.Text("host"); h != "" {
			hosts = append(hosts, h)
		}
	}
	if len(hosts) <= 3 {
		return or(strings.Join(hosts, ","), "*")
	}
	return few(hosts, 3, len(rules), ",")
}

func ingressParameters(r row) string {
	p := r.Sub("spec.parameters")
	if p == nil {
		return none
	}
	kind := p.Text("kind")
	if group := p.Text("apiGroup"); group != "" {
		kind += "." + group
	}
	return kind + "/" + p.Text("name")
}

func parentRef(r row) string {
	p := r.Sub("spec.parentRef")
	if p == nil {
		return none
	}
	out := p.Text("resource")
	if group := p.Text("group"); group != "" {
		out += "." + group
	}
	out = strings.ToLower(out)
	if ns := p.Text("namespace"); ns != "" {
		out += "/" + ns
	}
	return out + "/" + p.Text("name")
}

func requestedDuration(r row) string {
	if r.At("spec.expirationSeconds") == nil {
		return none
	}
	return Age(time.Duration(r.Int("spec.expirationSeconds")) * time.Second)
}

func certificateStatus(r row) string {
	out := "Pending"
	switch {
	case r.Condition("Denied") != nil:
		out = "Denied"
	case r.Condition("Approved") != nil:
		out = "Approved"
	}
	if r.Condition("Failed") != nil {
		out += ",Failed"
	}
	if r.Text("status.certificate") != "" {
		out += ",Issued"
	}
	return out
}

func apiService(r row) string {
	s := r.Sub("spec.service")
	if s == nil {
		return "Local"
	}
	return s.Text("namespace") + "/" + s.Text("name")
}

func available(r row) string {
	c := r.Condition("Available")
	if status := or(c.Text("status"), "Unknown"); status == "True" || c.Text("reason") == "" {
		return status
	}
	return fmt.Sprintf("%s (%s)", c.Text("status"), c.Text("reason"))
}
