package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/keelson-io/keelson/chaos/sim"
)

// loadSchedule reads a saved run.
func loadSchedule(name string) (s sim.Schedule, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// save writes the run to a file.
func save(s sim.Schedule, name string) error {
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}
