package client_test

import (
	"context"
	"fmt"
	"os"

	"github.com/keelson-io/keelson/client"
)

func ExampleClient() {
	c, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	if _, err := c.Put(ctx, "/jobs/1", []byte("queued")); err != nil {
		fmt.Println(err)
		return
	}
	kv, err := c.Get(ctx, "/jobs/1")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s is %s\n", kv.Key, kv.Value)
	// Output: /jobs/1 is queued
}

// exampleClient is a client of an empty cluster of one member. Other programs
// call client.New with their endpoints.
func exampleClient() (*client.Client, func()) {
	dir, err := os.MkdirTemp("", "keelson-example")
	if err != nil {
		panic(err)
	}
	m, err := runMember(dir)
	if err != nil {
		panic(err)
	}
	c, err := client.New(client.Config{Endpoints: []string{m.addr}})
	if err != nil {
		panic(err)
	}
	return c, func() {
		c.Close()
		m.stop()
		os.RemoveAll(dir)
	}
}
