package kinds

import (
	"fmt"
	"time"
)

// pod is what the status of a pod's containers says of the whole, as kubectl
// sums it up.
type pod struct {
	total, ready, restarts int64
	reason                 string
	lastRestart            time.Time
}

func podReady(r row) string {
	p := sumUp(r.View)
	return fmt.Sprintf("%d/%d", p.ready, p.total)
}

func podStatus(r row) string { return sumUp(r.View).reason }

func podRestarts(r row) string {
	p := sumUp(r.View)
	if p.restarts == 0 || p.lastRestart.IsZero() {
		return fmt.Sprint(p.restarts)
	}
	return fmt.Sprintf("%d (%s ago)", p.restarts, Age(r.now.Sub(p.lastRestart)))
}

func sumUp(v View) pod {
	phase := v.Text("status.phase")
	p := pod{total: int64(v.Size("spec.containers")), reason: or(v.Text("status.reason"), phase)}
	for _, c := range v.List("status.conditions") {
		if c.Text("type") == "PodScheduled" && c.Text("reason") == "SchedulingGated" {
			p.reason = "SchedulingGated"
		}
	}
	sidecars := map[string]bool{} // init containers that go on beside the others
	for _, c := range v.List("spec.initContainers") {
		if c.Text("restartPolicy") == "Always" {
			sidecars[c.Text("name")] = true
			p.total++
		}
	}
	sidecar, initializing := p.initialize(v, sidecars)
	if !initializing || v.Condition("Initialized").Text("status") == "True" {
		// What is left of the init containers' restarts is that of the sidecars.
		p.restarts, p.lastRestart = sidecar.restarts, sidecar.lastRestart
		p.run(v)
	}
	if v.At("metadata.deletionTimestamp") != nil {
		if v.Text("status.reason") == "NodeLost" {
			p.reason = "Unknown"
		} else if phase != "Succeeded" && phase != "Failed" {
			p.reason = "Terminating"
		}
	}
	return p
}

// restarted counts the restarts of a container.
func (p *pod) restarted(c View) {
	p.restarts += c.Int("restartCount")
	if t := c.Time("lastState.terminated.finishedAt"); t.After(p.lastRestart) {
		p.lastRestart = t
	}
}

// initialize looks at the init containers, up to the first that is not done.
func (p *pod) initialize(v View, sidecars map[string]bool) (sidecar pod, initializing bool) {
	for i, c := range v.List("status.initContainerStatuses") {
		p.restarted(c)
		aside := sidecars[c.Text("name")]
		if aside {
			sidecar.restarted(c)
		}
		ended := c.Sub("state.terminated")
		waits := c.Text("state.waiting.reason")
		switch {
		case ended != nil && ended.Int("exitCode") == 0:
			continue
		case aside && c.Flag("started"):
			if c.Flag("ready") {
				p.ready++
			}
			continue
		case ended != nil:
			p.reason = "Init:" + exit(ended)
		case waits != "" && waits != "PodInitializing":
			p.reason = "Init:" + waits
		default:
			p.reason = fmt.Sprintf("Init:%d/%d", i, v.Size("spec.initContainers"))
		}
		return sidecar, true
	}
	return sidecar, false
}

// exit says why a container ended.
func exit(ended View) string {
	if reason := ended.Text("reason"); reason != "" {
		return reason
	}
	if signal := ended.Int("signal"); signal != 0 {
		return fmt.Sprintf("Signal:%d", signal)
	}
	return fmt.Sprintf("ExitCode:%d", ended.Int("exitCode"))
}

// run looks at the containers, last to first, so that the first one's reason stays.
func (p *pod) run(v View) {
	containers := v.List("status.containerStatuses")
	running, failed := false, ""
	for i := len(containers) - 1; i >= 0; i-- {
		c := containers[i]
		p.restarted(c)
		ended := c.Sub("state.terminated")
		switch {
		case c.Text("state.waiting.reason") != "":
			p.reason = c.Text("state.waiting.reason")
		case ended != nil:
			p.reason = exit(ended)
			if ended.Int("exitCode") != 0 {
				failed = p.reason
			}
		case c.Flag("ready") && c.At("state.running") != nil:
			running = true
			p.ready++
		}
	}
	if p.reason != "Completed" {
		return
	}
	switch {
	case running && v.Condition("Ready").Text("status") == "True":
		p.reason = "Running"
	case failed != "":
		p.reason = failed
	case running:
		p.reason = "NotReady"
	}
}

func readinessGates(r row) string {
	gates := r.List("spec.readinessGates")
	if len(gates) == 0 {
		return none
	}
	met := 0
	for _, g := range gates {
		if r.Condition(g.Text("conditionType")).Text("status") == "True" {
			met++
		}
	}
	return fmt.Sprintf("%d/%d", met, len(gates))
}
