//go:build linux

package real

import (
	"slices"
	"time"
)

// Fault is one thing that a run can let happen.
type Fault struct {
	Name  string // by which it is asked for
	Row   int    // of package fault's catalogue
	Class string // of Classes, by its place in the catalogue
	About string

	Tuned     bool     // members run the build for chaos tests (cmd/kvd, tag chaos)
	Members   int      // of the cluster, at least; 0: three
	Times     int      // how often it happens in a run; 0: three times
	Long      bool     // to happen once may take it more than a minute
	DiskBytes int64    // of each member; 0: enough
	Args      []string // for each member
	Logs      []string // parts of lines of level error that the fault explains

	Setup  func(*Run) error // before the first start; may be nil
	Inject func(*Run) error // once, healed when it returns; members that are down are started by the run
}

// NeedsOlder reports whether the fault is one between two builds.
func (f *Fault) NeedsOlder() bool { return f.Name == upgradeName }

// With reports whether faults can take turns: an earlier build is not one for chaos
// tests.
func (f *Fault) With(o *Fault) bool { return !(f.Tuned && o.NeedsOlder() || o.Tuned && f.NeedsOlder()) }

// upgradeName is the fault that changes the members' program.
const upgradeName = "upgrade"

// Catalogue lists all faults, by class and row.
func Catalogue() []*Fault {
	var all []*Fault
	for i, faults := range [][]*Fault{
		processFaults, networkFaults, diskFaults, timeFaults, slices.Concat(membershipFaults, snapshotFaults),
		slices.Concat(semanticsFaults, leaseFaults, pressureFaults), loadFaults, operationsFaults, resourceFaults,
	} {
		for _, f := range faults {
			f.Class = Classes[i]
			all = append(all, f)
		}
	}
	return all
}

// Find returns the fault of a name, nil if there is none.
func Find(name string) *Fault {
	for _, f := range Catalogue() {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// week is the number of days in which the rotation comes round.
const week = 7

// Rotation lists the faults that CI makes on the day of t: those that take no more
// than a minute, each on one day of a week, and some of each class on each day.
func Rotation(t time.Time) []*Fault {
	day := int(t.UTC().Unix() / int64(24*time.Hour/time.Second) % week)
	var today []*Fault
	for i, f := range slices.DeleteFunc(Catalogue(), func(f *Fault) bool { return f.Long }) {
		if i%week == day {
			today = append(today, f)
		}
	}
	return today
}
