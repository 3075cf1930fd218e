package server

import (
	"context"
	"net"
	"strconv"
	"strings"
)

// systemResolver asks the system's DNS.
type systemResolver struct{}

func (systemResolver) srv(ctx context.Context, service, domain string) ([]string, error) {
	_, records, err := net.DefaultResolver.LookupSRV(ctx, service, "tcp", domain)
	var out []string
	for _, r := range records {
		out = append(out, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
	}
	return out, err
}

func (systemResolver) address(_ context.Context, hostport string) (string, error) {
	a, err := net.ResolveTCPAddr("tcp", hostport)
	if err != nil {
		return "", err
	}
	return a.String(), nil
}
