package sim

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/keelson-io/keelson/chaos/fault"
)

// Schedule is a run that is saved whole, with nothing left to be drawn: a seed
// means another run as soon as the code draws one number more, this stays close
// to what it was.
type Schedule struct {
	About  string // what it once found
	Config Config
	Plan   []fault.Event
}

// LoadSchedule reads a saved run.
func LoadSchedule(name string) (s Schedule, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// Save writes the run to a file.
func (s Schedule) Save(name string) error {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}
