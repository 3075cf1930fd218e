package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/keelson-io/keelson/chaos/fault"
)

// writeWasm is ring B's part of the page.
func (t *total) writeWasm(w io.Writer, track string) {
	if t.all.Seeds == 0 {
		return
	}
	s := t.stats
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(s.Faults)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, s.Faults[fault.Kind(k)]))
	}
	fmt.Fprintf(w, `## Whole members as WebAssembly

Ring B: three members and the client library with their goroutines, gRPC and all, on a simulated network, disks, clock and chance. Made by
`+"`make wasm`"+`, or `+"`go -C chaos/wasm run . -seeds N -results FILE`"+`; commits %s. Each run ends with a power cut of all members. It is no part of
`+"`make test`"+`: to build the guest and to translate it to machine code takes half a minute of a core, and then each seed some more.

| figure | value |
|---|---|
| seeds | %d |
| simulated time | %.0f s |
| simulated seconds a second of one core | %.1f |
| calls asked and judged, of which with an unknown outcome | %d, %d |
| acknowledged writes that changed a key | %d |
| acknowledged writes lost | %d |
| terms with a leader | %d |
| processes and machines that crashed, of which without power | %d, %d |
| events delivered to watches and judged | %d |
| faults | %s |
| seeds that failed | %d |

`, strings.Join(slices.Sorted(maps.Keys(t.commits)), ", "), t.all.Seeds, t.all.Simulated.Seconds(), t.timed[3].Simulated.Seconds()/t.timed[3].CPU.Seconds(),
		s.Ops, s.Unknown, s.Writes, t.lost(track), s.Elections, s.Crashes, s.PowerCuts, s.WatchEvents, strings.Join(kinds, ", "), len(t.failures))
	writeFailures(w, t.failures, track)
}
