// Package auth compares who may do what on etcd and on the store under test, to
// the code and the text of each refusal: every RPC of the protocol as nobody,
// with a forged token, as a user without a role, with a role on some keys, and as
// root (rights_test.go); the rules about users, roles and root (rules_test.go);
// logins, and how tokens end (login_test.go); users known by their certificates
// (certificate_test.go).
//
// The differential suite asks the same questions at random; here each has a name.
package auth
