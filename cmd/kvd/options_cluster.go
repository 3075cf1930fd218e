package main

import (
	"math"
)

// clusterOptions are about who belongs to the cluster once it runs.
var clusterOptions = []option{
	{group: "Clustering", name: "initial-cluster-state", def: "new", set: setClusterState,
		help: "'new' to begin a cluster, 'existing' to join one to which this member was added. Ignored once the data directory exists."},
	{group: "Clustering", name: "strict-reconfig-check", def: "true", bool: true,
		help: "Reject reconfiguration requests that would cause quorum loss.",
		set: func(s *settings, v string) (err error) {
			s.server.StrictReconfig, err = parseBool(v)
			return err
		}},
	number("Clustering", "max-learners", "1", "Maximum number of learners that the cluster may have at a time.", math.MaxInt32,
		func(s *settings, n uint64) { s.server.MaxLearners = int(n) }),
	toggle("Clustering", "auto-promote", "While this member leads, make voters of learners that have caught up. Not a flag of etcd's.",
		func(s *settings) *bool { return &s.server.AutoPromote }),
	toggle("Unsafe", "force-new-cluster", "Make this member the only one of its cluster, with the data it has. Only when the quorum is lost for good, and all other members are stopped.",
		func(s *settings) *bool { return &s.server.ForceNewCluster }),
}
