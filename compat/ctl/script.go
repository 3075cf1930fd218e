package ctl

import "slices"

// clusterSteps are for members who agree with each other, secureSteps for one
// member, over TLS. Together they are every job of etcdctl and of etcdutl that
// works on kvd's files, in their output formats.
func clusterSteps() []step {
	return slices.Concat(kvSteps(), txnSteps(), leaseSteps(), watchSteps(), adminSteps(), maintenanceSteps(), recipeSteps())
}

func secureSteps() []step {
	return slices.Concat(clientSteps(), txnSteps(), leaseSteps(), watchSteps(), snapshotSteps(), authSteps())
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

// clientSteps ask no server.
func clientSteps() []step {
	return []step{
		run("help"), run("help get"), run("options"), run("completion bash"), run("completion nosuchshell"), run("check"), run("lease"),
		offline("help"), offline("version"), offline("completion bash"), offline("snapshot"), offline("nosuchcommand"),
	}
}

// recipeSteps: locks, elections and mirrors are made of reads, writes and watches.
func recipeSteps() []step {
	mirror := until(lastValue, "make-mirror --prefix=m/ --dest-prefix=n/ {endpoint}")
	mirror.polled = "get n/last --print-value-only"
	return []step{
		until("/", "lock l1"), run("get l1/ --prefix --count-only -w fields"), run("lock l1 echo in·the·lock"), run("lock l1 false"), run("lock l1 --ttl=60 echo again"), run("lock"),
		until("proposed", "elect e1 proposed"), run("elect"), run("elect -l"), run("elect e1 a b"),
		run("put e2/1234 leads"), until("leads", "elect -l e2"),
		run("put m/1 one"), run("put m/2 two"), run("put m/last " + lastValue), mirror, run("get n/ --prefix"), run("make-mirror"),
	}
}

// snapshotSteps save one, and let etcdutl read, restore and refuse it.
func snapshotSteps() []step {
	return []step{
		run("snapshot save {dir}/snapshot.db --endpoints={endpoint}"), run("snapshot save"), run("snapshot save {dir}/none/snapshot.db --endpoints={endpoint}"),
		offline("snapshot restore {dir}/snapshot.db --data-dir {dir}/restored"), offline("snapshot restore {dir}/snapshot.db --data-dir {dir}/restored"),
		offline("snapshot restore {dir}/snapshot.db --data-dir {dir}/bumped --bump-revision=1000000 --mark-compacted"),
		// These open the file for writing, after which its checksum is wrong.
		offline("snapshot status {dir}/snapshot.db"), offline("snapshot status {dir}/snapshot.db -w json"), offline("snapshot status {dir}/snapshot.db -w table"),
		offline("snapshot status {dir}/snapshot.db -w fields"), offline("snapshot status {dir}/nosuch.db"), offline("snapshot status"),
		offline("hashkv {dir}/snapshot.db"), offline("hashkv {dir}/snapshot.db -w json"), offline("hashkv {dir}/snapshot.db --rev=20"),
		offline("snapshot status {dir}/bumped/member/snap/db -w json"), offline("snapshot restore"),
	}
}
