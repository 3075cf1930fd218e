package main

import (
	"math"
	"strings"
	"time"

	"github.com/keelson-io/keelson/server"
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
	text("Clustering", "discovery-srv", "", "DNS domain whose SRV records name the members of a new cluster.",
		func(s *settings) *string { return &s.server.Discovery.SRV }),
	text("Clustering", "discovery-srv-name", "", "Added to the name of the service that is looked up in DNS.",
		func(s *settings) *string { return &s.server.Discovery.SRVName }),
	{group: "Clustering", name: "discovery-endpoints", help: "Endpoints of a cluster where the members of a new one register.",
		set: func(s *settings, v string) error {
			s.server.Discovery.Endpoints = strings.Split(v, ",")
			return nil
		}},
	discoveryText("token", "Names the new cluster with the discovery service.", func(d *server.Discovery) *string { return &d.Token }),
	discoveryTime("dial-timeout", "2s", "How long to wait for a connection with the discovery service.", func(d *server.Discovery) *time.Duration { return &d.DialTimeout }),
	discoveryTime("request-timeout", "5s", "How long to wait for an answer of the discovery service.", func(d *server.Discovery) *time.Duration { return &d.RequestTimeout }),
	discoveryTime("keepalive-time", "2s", "Between two probes of the connection with the discovery service.", func(d *server.Discovery) *time.Duration { return &d.KeepaliveTime }),
	discoveryTime("keepalive-timeout", "6s", "How long to wait for the answer of a probe.", func(d *server.Discovery) *time.Duration { return &d.KeepaliveTimeout }),
	{group: "Clustering", name: "discovery-insecure-transport", def: "true", bool: true, help: "Speak plainly with endpoints that do not begin with https://.",
		set: func(s *settings, v string) (err error) {
			s.server.Discovery.Insecure, err = parseBool(v)
			return err
		}},
	toggle("Clustering", "discovery-insecure-skip-tls-verify", "Trust any certificate of the discovery service. For tests only.",
		func(s *settings) *bool { return &s.server.Discovery.InsecureSkipVerify }),
	discoveryText("cert", "Certificate file to show to the discovery service.", func(d *server.Discovery) *string { return &d.Cert }),
	discoveryText("key", "Its key file.", func(d *server.Discovery) *string { return &d.Key }),
	discoveryText("cacert", "CA file by which to verify the discovery service.", func(d *server.Discovery) *string { return &d.CACert }),
	discoveryText("user", "User of the discovery service, name or name:password.", func(d *server.Discovery) *string { return &d.User }),
	discoveryText("password", "Password of that user.", func(d *server.Discovery) *string { return &d.Password }),
	toggle("Unsafe", "force-new-cluster", "Make this member the only one of its cluster, with the data it has. Only when the quorum is lost for good, and all other members are stopped. 'kvctl cluster recover' does the same, guided.",
		func(s *settings) *bool { return &s.server.ForceNewCluster }),
}

func discoveryText(name, help string, field func(*server.Discovery) *string) option {
	return text("Clustering", "discovery-"+name, "", help, func(s *settings) *string { return field(&s.server.Discovery) })
}

func discoveryTime(name, def, help string, field func(*server.Discovery) *time.Duration) option {
	return duration("Clustering", "discovery-"+name, def, help, func(s *settings) *time.Duration { return field(&s.server.Discovery) })
}
