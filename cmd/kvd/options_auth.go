package main

import "math"

// authOptions say how users are known. The first three are etcd's; the others are
// ours, because etcd neither has a policy for passwords nor slows guessing down.
var authOptions = []option{
	text("Security", "auth-token", "simple", "What a login yields: simple; or jwt,sign-method=METHOD,pub-key=FILE,priv-key=FILE,ttl=10m; or nothing, to know users by certificates alone.",
		func(s *settings) *string { return &s.server.AuthToken }),
	number("Security", "auth-token-ttl", "300", "Seconds that a simple token lives without being used.", math.MaxInt32,
		func(s *settings, n uint64) { s.server.AuthTokenTTL = uint(n) }),
	number("Security", "bcrypt-cost", "10", "Cost of a password's hash, from 4 to 31; each step doubles the time of a login.", math.MaxUint8,
		func(s *settings, n uint64) { s.server.BcryptCost = uint(n) }),
	number("Security", "auth-min-password-length", "1", "Shorter passwords are refused when they are set, by the member that is asked.", maxPassword,
		func(s *settings, n uint64) { s.server.MinPasswordLength = uint(n) }),
	number("Security", "auth-free-failures", "10", "Failed logins in a row, of one user from one address, before the next has to wait: a second, then twice as long each time, to a minute. 0 never makes it wait.", math.MaxInt32,
		func(s *settings, n uint64) { s.server.AuthFreeFailures = uint(n) }),
}

// maxPassword is what bcrypt can tell apart.
const maxPassword = 72
