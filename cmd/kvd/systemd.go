package main

import (
	"net"
	"strings"
)

// notifySystemd tells the service manager that the member serves. Units made
// for etcd have Type=notify: without this, systemd would end kvd again. An
// empty socket means that nobody asked.
func notifySystemd(socket string) error {
	if socket == "" {
		return nil
	}
	if name, abstract := strings.CutPrefix(socket, "@"); abstract {
		socket = "\x00" + name
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1"))
	return err
}
