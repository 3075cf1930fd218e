package control

import (
	"fmt"
	"slices"
	"time"
)

// Term is a time in which a process acted as the one that leads.
type Term struct {
	Process  string // its name, and what it holds the lease as
	From, To time.Time
}

// life is one process of a manager, and when it was killed.
type life struct {
	identity string
	killed   time.Time
}

// termsOf are the terms of one process: from when it says that it leads until it
// says that it does not, or was killed.
func termsOf(l life, said []Said) (terms []Term) {
	open := false
	for _, s := range said {
		switch s.What {
		case SaidLeads:
			terms, open = append(terms, Term{Process: l.identity, From: s.At}), true
		case SaidYields, SaidStopped:
			if open {
				terms[len(terms)-1].To, open = s.At, false
			}
		}
	}
	if open {
		terms[len(terms)-1].To = l.killed
	}
	return terms
}

// Overlaps are pairs of terms in which two processes led at once. All clocks are one:
// the processes share a machine.
func Overlaps(terms []Term) (wrong []string) {
	terms = slices.Clone(terms)
	slices.SortFunc(terms, func(a, b Term) int { return a.From.Compare(b.From) })
	for i, a := range terms {
		for _, b := range terms[i+1:] {
			if b.From.Before(a.To) {
				wrong = append(wrong, fmt.Sprintf("%s led from %v on, %s until %v", b.Process, b.From, a.Process, a.To))
			}
		}
	}
	return wrong
}

// Election is what the history of a Lease tells.
type Election struct {
	Renewals, Transitions int
	Wrong                 []string
	holders               []holding
}

type holding struct {
	from   int64 // revision
	holder string
}

// HolderAt is who held the lease at a revision.
func (e *Election) HolderAt(rev int64) (holder string) {
	for _, h := range e.holders {
		if h.from > rev {
			break
		}
		holder = h.holder
	}
	return holder
}

// JudgeElection reads the history of a Lease: a holder gives way to another only when
// its lease has run out, or it gave it back, and each transition is counted.
func JudgeElection(history []event, key string) *Election {
	e := &Election{}
	for _, ev := range history {
		if ev.key != key {
			continue
		}
		if ev.new == nil {
			e.Wrong = append(e.Wrong, fmt.Sprintf("the lease was deleted at %d", ev.rev))
			continue
		}
		now := ev.new.Spec
		if ev.old == nil || ev.old.Spec.HolderIdentity == now.HolderIdentity {
			e.Renewals++
		} else {
			e.change(ev.rev, ev.old, ev.new)
		}
		if len(e.holders) == 0 || e.holders[len(e.holders)-1].holder != now.HolderIdentity {
			e.holders = append(e.holders, holding{ev.rev, now.HolderIdentity})
		}
	}
	return e
}

func (e *Election) change(rev int64, was, is *state) {
	e.Transitions++
	old, now := was.Spec, is.Spec
	if now.LeaseTransitions != old.LeaseTransitions+1 && now.HolderIdentity != "" {
		e.Wrong = append(e.Wrong, fmt.Sprintf("at %d the holder changed from transition %d to %d", rev, old.LeaseTransitions, now.LeaseTransitions))
	}
	if old.HolderIdentity == "" || now.HolderIdentity == "" {
		return // given back, or free
	}
	renewed, err := time.Parse(time.RFC3339Nano, old.RenewTime)
	acquired, err2 := time.Parse(time.RFC3339Nano, now.AcquireTime)
	if until := renewed.Add(time.Duration(old.LeaseDurationSeconds) * time.Second); err != nil || err2 != nil || acquired.Before(until) {
		e.Wrong = append(e.Wrong, fmt.Sprintf("at %d %s took the lease at %v from %s, who held it until %v", rev, now.HolderIdentity, acquired, old.HolderIdentity, until))
	}
}
