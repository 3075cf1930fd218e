package ctl

import "strings"

// step is one run of etcdctl.
type step struct {
	args  string // split at spaces; {lease} is the id of the last lease granted; '·' stands for a space inside an argument
	stdin string
	// watch steps run until they have printed the value that is put last of all,
	// so they see everything from the revision they ask for.
	watch bool
}

func run(args string) step         { return step{args: args} }
func with(args, stdin string) step { return step{args: args, stdin: stdin} }
func watching(args string) step    { return step{args: "watch " + args, watch: true} }
func (s step) words() (out []string) {
	for _, w := range strings.Fields(s.args) {
		out = append(out, strings.ReplaceAll(w, "·", " "))
	}
	return out
}

// lastValue ends the watches.
const lastValue = "that-was-all"

// script is every job of etcdctl that exists so far, in its output formats.
func script() []step {
	var out []step
	out = append(out, kvSteps()...)
	out = append(out, txnSteps()...)
	out = append(out, leaseSteps()...)
	out = append(out, watchSteps()...)
	out = append(out, adminSteps()...)
	out = append(out, maintenanceSteps()...)
	return out
}

func kvSteps() []step {
	steps := []step{
		run("put a 1"), run("put a 2 --prev-kv"), run("put b 1 -w json"), run("put a/1 x"), run("put a/2 y"), run("put a/3 z"),
		with("put fromstdin", "text from stdin"),
		run("put a --ignore-value"), run("put nosuch --ignore-value"), run("put a v --ignore-value"), run("put k v --lease=1234"),
		run("put a 3 --ignore-lease"), run("put"), run("put k"),
		run("get a"), run("get a -w json"), run("get a -w fields"), run("get a --print-value-only"), run("get nosuch"), run("get nosuch -w json"),
		run("get a/ --prefix"), run("get a/ --prefix --keys-only"), run("get a/ --prefix --count-only"), run("get a/ --prefix --count-only -w fields"),
		run("get a/ --prefix --limit=2 -w json"), run("get a b"), run("get a --from-key"), run("get --prefix · --keys-only"),
		run("get a/ --prefix --order=DESCEND --sort-by=MODIFY"), run("get a/ --prefix --sort-by=VALUE --order=DESCEND"),
		run("get a/ --prefix --sort-by=CREATE"), run("get a/ --prefix --sort-by=VERSION"), run("get a/ --prefix --sort-by=NOSUCH"),
		run("get a --rev=2"), run("get a --rev=3 -w json"), run("get a --rev=1000"), run("get a --consistency=s"),
		run("get a/ --prefix --min-mod-rev=6 --max-mod-rev=7"), run("get a/ --prefix --min-create-rev=6 --max-create-rev=7"),
		run("get a --hex"), run("get"),
		run("del a/1"), run("del a/1"), run("del a/2 --prev-kv"), run("del a/ --prefix --prev-kv -w json"), run("del nosuch --from-key"),
		run("put r1 1"), run("put r2 2"), run("del r1 r3"), run("del"),
	}
	return steps
}

func txnSteps() []step {
	return []step{
		with("txn", "value(\"a\") = \"3\"\n\nput a 4\nget a\n\nput a lost\n\n"),
		with("txn", "value(\"a\") = \"wrong\"\n\nput a lost\n\nget a\ndel b\n\n"),
		with("txn -w json", "mod(\"a\") > \"1\"\nver(\"a\") < \"100\"\ncreate(\"a\") = \"2\"\n\nget a\nput t 1\n\n\n"),
		with("txn", "ver(\"a\") != \"0\"\n\ndel a\n\n\n"),
		with("txn", "\nput d 1\nput d 2\n\n\n"),
		with("txn", "\nput d 1 --lease=99\n\n\n"),
		with("txn", "nonsense\n\n\n"),
		with("txn -w fields", "\nget t\n\n\n"),
	}
}

func leaseSteps() []step {
	return []step{
		run("lease grant 600"), run("put leased v --lease={lease}"),
		run("lease timetolive {lease}"), run("lease timetolive {lease} --keys"), run("put leased2 v --lease={lease} -w json"), run("lease list"), run("lease list -w json"),
		run("lease keep-alive --once {lease}"), run("lease keep-alive --once 1234"), run("get leased -w fields"),
		run("lease revoke {lease}"), run("lease revoke {lease}"), run("lease timetolive {lease}"), run("lease timetolive {lease} -w json"),
		run("get leased"), run("lease list"), run("lease grant abc"), run("lease grant 9000000001"), run("lease revoke xyz"),
	}
}

func watchSteps() []step {
	return []step{
		run("put w v1"), run("put w v2"), run("del w"), run("put w2 v"), run("put w " + lastValue),
		watching("w --rev=2"), watching("w --prefix --rev=2 --prev-kv"), watching("w --rev=2 -w json"), watching("w --rev=2 -w fields --prev-kv"),
		watching("--rev=2 a x"), watching("w --rev=2 --prefix --progress-notify"),
		run("compaction 5"), run("compaction 5"), run("compaction 99999"), run("compaction 8 --physical"), run("compaction x"),
		run("get a --rev=4"), run("get a --rev=4 -w json"), run("watch w --rev=3"),
	}
}

func adminSteps() []step {
	return []step{
		run("endpoint health"), run("endpoint health -w json"), run("endpoint health --cluster"),
		run("endpoint status"), run("endpoint status -w json"), run("endpoint status -w table"), run("endpoint status -w fields"),
		run("endpoint status --cluster"), run("member list"), run("member list -w json"), run("member list -w table"), run("member list -w fields"),
		run("get a --command-timeout=5s"), run("version"), run("nosuchcommand"),
	}
}

// maintenanceSteps leave hashes of whole histories out: they hold lease ids,
// which servers choose.
func maintenanceSteps() []step {
	return []step{
		run("alarm list"), run("alarm list -w json"), run("alarm disarm"), run("alarm disarm -w json"), run("alarm"), run("alarm nosuch"),
		run("endpoint hashkv --rev=7"), run("endpoint hashkv --rev=99999"),
		run("defrag"), run("defrag --cluster"), run("defrag x"),
		run("move-leader"), run("move-leader xyz"), run("move-leader 123"),
		run("downgrade validate"), run("downgrade validate abc"), run("downgrade validate 3.5"), run("downgrade validate 3.6"),
		run("downgrade enable 3.5"), run("downgrade cancel"), run("snapshot save"),
	}
}
