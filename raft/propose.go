package raft

type waiter struct{}
