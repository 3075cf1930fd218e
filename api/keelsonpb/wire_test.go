package keelsonpb

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

func describe(t testing.TB) protoreflect.FileDescriptor {
	t.Helper()
	file, err := protodesc.NewFile(Description(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestDescriptionIsTheFile: the description has the fields of pipeline.proto.
func TestDescriptionIsTheFile(t *testing.T) {
	text, err := os.ReadFile("pipeline.proto")
	if err != nil {
		t.Fatal(err)
	}
	var inFile, described []string
	for _, m := range regexp.MustCompile(`(?m)^message (\w+) \{((?s).*?)^\}`).FindAllSubmatch(text, -1) {
		for _, f := range regexp.MustCompile(`(?m)^  (repeated )?(\w+) (\w+) = (\d+)`).FindAllSubmatch(m[2], -1) {
			inFile = append(inFile, fmt.Sprintf("%s.%s: %s%s = %s", m[1], f[3], f[1], f[2], f[4]))
		}
	}
	messages := describe(t).Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			f := fields.Get(j)
			kind := f.Kind().String()
			if f.Message() != nil {
				kind = string(f.Message().Name())
			}
			if f.IsList() {
				kind = "repeated " + kind
			}
			described = append(described, fmt.Sprintf("%s.%s: %s = %d", messages.Get(i).Name(), f.Name(), kind, f.Number()))
		}
	}
	if slices.Sort(inFile); len(inFile) < 10 {
		t.Fatalf("found %d fields in the file", len(inFile))
	}
	if slices.Sort(described); !slices.Equal(inFile, described) {
		t.Errorf("the file has\n%q\nthe description\n%q", inFile, described)
	}
}

var (
	someCalls = []Call{
		{ID: 1, Method: Put, NeedsLeader: true, Request: []byte("put")},
		{ID: 1 << 60, Method: Range, Request: []byte{}},
		{ID: 3, Method: 99, Request: bytes.Repeat([]byte("x"), 300)},
	}
	someAnswers = []Answer{
		{ID: 1, Response: []byte("response")},
		{ID: 2, Code: 14, Message: "etcdserver: no leader", Response: []byte{}},
		{ID: 1 << 63, Code: 8, Message: "busy", PushbackMS: 70, Response: bytes.Repeat([]byte("y"), 20_000)},
	}
)

func encodeCalls() (b []byte) {
	for _, c := range someCalls {
		b = append(AppendCall(b, c, len(c.Request)), c.Request...)
		b = AppendEnded(b, c.ID)
	}
	return b
}

func encodeAnswers() (b []byte) {
	b = AppendHello(b, 77)
	for _, a := range someAnswers {
		b = append(AppendAnswer(b, a, len(a.Response)), a.Response...)
	}
	return AppendDone(b)
}

// TestWire: what is written is read again, and is what protobuf makes of it.
func TestWire(t *testing.T) {
	file := describe(t)
	same := func(name protoreflect.Name, b []byte) {
		t.Helper()
		m := dynamicpb.NewMessage(file.Messages().ByName(name))
		if err := proto.Unmarshal(b, m); err != nil {
			t.Fatal(err)
		}
		if len(m.GetUnknown()) > 0 {
			t.Errorf("%s: %x is unknown to protobuf", name, m.GetUnknown())
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil || len(again) > len(b) {
			t.Errorf("%s: protobuf makes %d bytes of %d: %v", name, len(again), len(b), err)
		}
		check(t, name, b)
		check(t, name, again)
	}
	same("Requests", encodeCalls())
	same("Answers", encodeAnswers())
	for _, c := range someCalls {
		if n := len(AppendCall(nil, c, len(c.Request))); n > CallOverhead {
			t.Errorf("a call has %d bytes beside its request", n)
		}
	}
}

func check(t *testing.T, name protoreflect.Name, b []byte) {
	t.Helper()
	switch name {
	case "Requests":
		var calls []Call
		var ended []uint64
		err := ReadRequests(b, func(c Call) {
			if c.Request == nil {
				c.Request = []byte{} // protobuf leaves it out
			}
			calls = append(calls, c)
		}, func(id uint64) { ended = append(ended, id) })
		if err != nil || !reflect.DeepEqual(calls, someCalls) || !slices.Equal(ended, []uint64{1, 1 << 60, 3}) {
			t.Errorf("got %v, %v, %v", calls, ended, err)
		}
	case "Answers":
		var answers []Answer
		done, most, err := ReadAnswers(b, func(a Answer) error {
			if a.Response == nil {
				a.Response = []byte{}
			}
			answers = append(answers, a)
			return nil
		})
		if err != nil || !done || most != 77 || !reflect.DeepEqual(answers, someAnswers) {
			t.Errorf("got %v, %v, %v, %v", answers, done, most, err)
		}
	}
}

// FuzzWire: no input makes a decoder fail in another way than with its error, and
// what protobuf refuses is refused.
func FuzzWire(f *testing.F) {
	f.Add(encodeCalls())
	f.Add(encodeAnswers())
	file := describe(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		errs := map[protoreflect.Name]error{}
		errs["Requests"] = ReadRequests(b, func(Call) {}, func(uint64) {})
		_, _, errs["Answers"] = ReadAnswers(b, func(Answer) error { return nil })
		for name, err := range errs {
			// Texts that are not UTF-8 are not looked at here; protobuf refuses them.
			if proto.Unmarshal(b, dynamicpb.NewMessage(file.Messages().ByName(name))) == nil && err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// BenchmarkReadRequests is what cutting a message of 100 puts costs.
func BenchmarkReadRequests(b *testing.B) {
	var m []byte
	for i := range 100 {
		m = append(AppendCall(m, Call{ID: uint64(i), Method: Put, NeedsLeader: true}, 300), make([]byte, 300)...)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := ReadRequests(m, func(Call) { n++ }, nil); err != nil || n != 100 {
			b.Fatal(n, err)
		}
	}
}
