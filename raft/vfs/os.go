package vfs

// OS returns the machine's file system.
func OS() FS { return nil }
