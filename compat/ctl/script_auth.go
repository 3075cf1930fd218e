package ctl

// The users of authSteps.
const (
	admin   = "root:the·root's·password"
	limited = "ann:secret"
)

// authSteps make users and roles, switch authentication on, try what each may do,
// and switch it off.
func authSteps() []step {
	var out []step
	out = append(out, roleSteps()...)
	out = append(out, userSteps()...)
	out = append(out, run("auth"), run("auth status"), run("auth status -w json"), run("auth enable"), run("auth enable x"))
	out = append(out, rightsSteps()...)
	return append(out,
		as(limited, "auth disable"), run("auth disable"), as(admin, "auth status"), as(admin, "auth disable"), run("auth disable"), run("auth status"),
		run("user delete ann"), run("role delete some"), run("user list"), run("role list"))
}

func roleSteps() []step {
	return []step{
		run("role"), run("role add some"), run("role add some"), run("role add other -w json"), run("role add"), run("role list"), run("role list -w json"),
		run("role grant-permission some readwrite a"), run("role grant-permission some read k/ --prefix"), run("role grant-permission some write w x"),
		run("role grant-permission some read z --from-key"), run("role grant-permission some nosuch a"), run("role grant-permission nosuch read a"), run("role grant-permission some read"),
		run("role get some"), run("role get some -w json"), run("role get some -w fields"), run("role get nosuch"), run("role get root"), run("role get"),
		run("role revoke-permission some w x"), run("role revoke-permission some w x"), run("role revoke-permission some z --from-key"), run("role revoke-permission some k/ --prefix"),
		run("role revoke-permission nosuch a"), run("role get some"), run("role delete other"), run("role delete other"), run("role delete"),
	}
}

func userSteps() []step {
	return []step{
		run("user"), run("user add " + admin), run("user add ann:x"), run("user add ann:y"), run("user add bob --no-password"), run("user add :x"), run("user add"),
		with("user add cyd --interactive=false", "typed\n"), run("user add dan --new-user-password=given"), run("user add eve --no-password -w json"),
		run("user list"), run("user list -w json"), run("user get ann"), run("user get ann -w json"), run("user get nosuch"), run("user get ann --detail"), run("user get"),
		with("user passwd ann --interactive=false", "secret\n"), with("user passwd nosuch --interactive=false", "x\n"), run("user passwd"),
		run("user grant-role ann some"), run("user grant-role ann nosuch"), run("user grant-role nosuch some"), run("user grant-role ann"), run("user get ann --detail"),
		run("user grant-role bob some -w json"), run("user revoke-role bob some"), run("user revoke-role bob some"), run("user revoke-role bob"),
		run("user delete eve"), run("user delete eve"), run("user delete"), run("auth enable"), run("user grant-role root root"), run("user get root"),
	}
}

// rightsSteps run with authentication on.
func rightsSteps() []step {
	out := []step{
		run("auth status"), as(admin, "auth status"), as(admin, "auth status -w json"),
		as("ann:wrong", "get a"), as("nosuch:x", "get a"), as("bob:x", "get a"), as(":x", "get a"),
		as(admin, "user delete root"), as(admin, "user revoke-role root root"), as(admin, "role delete root"), as(admin, "role get root"),
		as(limited, "watch a --rev=1"), as(limited, "watch b"), as(limited, "snapshot save {dir}/no.db --endpoints={endpoint}"), as(admin, "snapshot save {dir}/auth.db --endpoints={endpoint}"),
		offline("snapshot status {dir}/auth.db -w json"), as(limited, "lock l1 echo locked"), as(admin, "lock l1 echo locked"), as(admin, "lease grant 1000"),
		as(limited, "lease timetolive {lease} --keys"), as(limited, "lease keep-alive --once {lease}"), as(limited, "lease revoke {lease}"), run("lease revoke {lease}"),
	}
	for _, args := range []string{
		"get a", "get b", "get a b", "get --prefix ·", "put a 1", "put b 1", "del a", "del a z", "del a --prev-kv", "lease grant 100", "lease list", "compaction 1",
		"user list", "user get ann", "user get root", "role list", "role get some", "user add x:y", "role add x", "role delete x", "user delete x",
		"endpoint health", "endpoint status -w fields", "endpoint hashkv --rev=1", "member list", "alarm list", "alarm disarm", "defrag", "move-leader 123", "downgrade validate 3.6",
	} {
		out = append(out, run(args), as(limited, args), as(admin, args))
	}
	return append(out, as(limited, "txn"), step{args: "txn", stdin: "value(\"a\") = \"x\"\n\nput a 2\n\nget a\n\n", user: limited}, step{args: "txn", stdin: "\nput b 2\n\n\n", user: limited})
}
