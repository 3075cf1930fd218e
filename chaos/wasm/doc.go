// Command wasm is ring B: three members and their clients, each an instance of
// WebAssembly, on a network, disks, a clock and chance that the host simulates.
//
//	go -C chaos/wasm run . -seed 5 -v
//
// What runs in an instance is not a model: it is package server from gRPC's
// handlers to the log, with all its goroutines, and package client under package
// load. Go's runtime has one thread there, never interrupts a goroutine, and takes
// time and chance from the host alone: the same seed is the same run, to the order
// in which goroutines go on, and another seed is another order. So ring B sees what
// ring A leaves out, goroutines, channels, gRPC's streams, pipelines and the client
// library, and repeats it, which ring C cannot.
//
// # The world
//
// A node is a computer, a machine one life of its process. The world is a queue of
// events in simulated time; instances are coroutines of it (iter.Pull), one of which
// runs at a time, until it waits in poll_oneoff. A crash is to forget the instance,
// at any of its calls of the host; a disk is a vfs.Mem, which loses by a power cut
// what was not synced, sector by sector. Connections behave as TCP's do: in order,
// late when packets are lost, broken after five seconds without acknowledgement,
// refused where nobody listens.
//
// # What is not here
//
// bbolt cannot run in an instance; package journal keeps the engine's contract. TLS
// is off. A goroutine that computes is never interrupted; instead the guest lets
// others run, by chance, before it calls the host. A process that does not read
// from its socket is not modelled.
//
// # Reading order
//
// wire/wire.go, then world.go, node.go, machine.go, wasi.go, disk.go, network.go,
// nemesis.go, judge.go; guest/ for the other side.
package main
