// Package history is what a chaos run leaves for its judges: what clients asked
// and were told, what the members agreed on, what watches delivered, what the
// harness broke meanwhile. Every ring writes it and package oracle reads it, so
// that a property is said once and holds everywhere.
//
// All times are on one clock that never jumps, the harness's, from the start of
// the run.
//
// # In memory and on disk
//
// A History is a run in memory. A Writer appends to a file while the run goes on,
// one record a call or event, from any number of goroutines; a Recorder stands
// before it and knows the clock, gives numbers, and writes down what is under way
// when the run ends. Read makes a History of a file again, Show prints one. A file
// whose end is missing, because the harness was killed, is read up to there.
//
// # The format
//
// A line that says what the file is, then records:
//
//	length   uvarint, of kind and body
//	kind     1 byte
//	body     msgpack: a struct is an array of its fields, to which later versions append
//	checksum CRC-32C of kind and body, little-endian
//
// Messages of etcd's API are in their own wire format, beside their name. Names
// stand once, in a record of their own, and are numbers from then on. The first
// record is the Meta. With a name that ends in .gz the whole is compressed; a
// million calls take some 200 MB, or a fifth of that.
package history
