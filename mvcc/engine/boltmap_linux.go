package engine

import "syscall"

// mapAtOnce has a file's pages mapped when it is opened. All of them are about to be
// read, and one call for all costs a third of what a fault for each does.
const mapAtOnce = syscall.MAP_POPULATE
