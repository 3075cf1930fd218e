// Package metrics holds what kvd shows at /metrics against what etcd shows after
// the same traffic: names, types and labels. Values differ by nature.
//
// server/testdata/etcd_metrics.txt is the list of etcd's metrics with what each
// is asked for by; this suite proves it against etcd itself. A metric of etcd
// that kvd lacks stands in server/testdata/etcd_metrics_absent.txt, with the
// reason; an entry there for something that kvd has is an error, too.
package metrics
