package server

import (
	"context"
	"strconv"
	"strings"
)

// Tracer makes spans of requests; nil: nobody traces, and nothing is paid for it.
// Package tracing has one.
type Tracer interface {
	// RPC begins the span of an RPC, Step one inside that of ctx. The function
	// ends it, with the error that there was.
	RPC(ctx context.Context, service, method string) (context.Context, func(error))
	Step(ctx context.Context, name string) (context.Context, func(error))
	// Note adds names and values in turn to the span of ctx, if somebody will
	// see it.
	Note(ctx context.Context, texts func() []string)
}

func endNothing(error) {}

// traced begins the span of an RPC.
func traced(ctx context.Context, t Tracer, fullMethod string, req any) (context.Context, func(error)) {
	if t == nil {
		return ctx, endNothing
	}
	service, method, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	ctx, end := t.RPC(ctx, service, method)
	t.Note(ctx, func() []string { return traceTexts(req) })
	return ctx, end
}

// step begins a part of a request.
func step(ctx context.Context, t Tracer, name string) (context.Context, func(error)) {
	if t == nil {
		return ctx, endNothing
	}
	return t.Step(ctx, name)
}

// traceTexts tells which keys a request is about, under etcd's names if it is one
// range. Never values.
func traceTexts(req any) (texts []string) {
	r, ok := req.(accessor)
	if !ok {
		return nil
	}
	keys, _ := describeKeys(r)
	for i, k := range keys {
		n := ""
		if i > 0 {
			n = "." + strconv.Itoa(i)
		}
		texts = append(texts, "key"+n, k.Key)
		if k.End != "" {
			texts = append(texts, "range_end"+n, k.End)
		}
	}
	return texts
}
