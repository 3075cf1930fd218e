package main

import (
	"net"
	"strconv"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// serveDNS runs a name server for the domain "cluster.test", whose SRV records
// name the member at an endpoint: plainly as etcd-client, and as
// etcd-client-named for --discovery-srv-name.
func serveDNS(t testing.TB, endpoint string) (address string) {
	t.Helper()
	_, text, err := net.SplitHostPort(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]uint16{
		"_etcd-client._tcp.cluster.test.":       uint16(port),
		"_etcd-client-named._tcp.cluster.test.": uint16(port),
		"_etcd-client._tcp.empty.test.":         9, // where nobody listens
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer, err := answerDNS(buf[:n], records); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// answerDNS answers one question: SRV records, and 127.0.0.1 for member.test.
func answerDNS(question []byte, srv map[string]uint16) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(question)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true}, Questions: []dnsmessage.Question{q}}
	answer := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}}
	port, known := srv[q.Name.String()]
	switch {
	case q.Type == dnsmessage.TypeSRV && known:
		answer.Body = &dnsmessage.SRVResource{Port: port, Target: dnsmessage.MustNewName("member.test.")}
		m.Answers = append(m.Answers, answer)
	case q.Type == dnsmessage.TypeA && q.Name.String() == "member.test.":
		answer.Body = &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}
		m.Answers = append(m.Answers, answer)
	case q.Name.String() != "member.test.":
		m.RCode = dnsmessage.RCodeNameError
	}
	return m.Pack()
}
