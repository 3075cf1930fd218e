package sim

import "github.com/keelson-io/keelson/chaos/fault"

// Schedule is a run that is saved whole, with nothing left to be drawn: a seed
// means another run as soon as the code draws one number more, this stays close
// to what it was.
type Schedule struct {
	About  string // what it once found
	Config Config
	Plan   []fault.Event
}
