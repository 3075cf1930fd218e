package raft

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

func testFrames() [][]*Command {
	return [][]*Command{
		nil,
		{{Kind: 0, ID: 0}},
		{{Kind: 255, ID: math.MaxUint64, Principal: "root", Body: []byte("x")}},
		{
			{Kind: 1, ID: 127, Principal: strings.Repeat("p", 31), Body: bytes.Repeat([]byte{1}, 255)},
			{Kind: 2, ID: 128, Principal: strings.Repeat("p", 32), Body: bytes.Repeat([]byte{2}, 256)},
			{Kind: 3, ID: 255, Principal: strings.Repeat("p", 256), Body: bytes.Repeat([]byte{3}, 65535)},
			{Kind: 4, ID: 256, Principal: strings.Repeat("p", 65536), Body: bytes.Repeat([]byte{4}, 65536)},
			{Kind: 5, ID: 65536}, {Kind: 6, ID: 1 << 32},
		},
		make16(),
	}
}

func make16() (cmds []*Command) {
	for i := range 70000 {
		cmds = append(cmds, &Command{Kind: 7, ID: uint64(i)})
	}
	return cmds
}

// TestFrameIsMsgpack reads frames with a general decoder.
func TestFrameIsMsgpack(t *testing.T) {
	for _, cmds := range testFrames() {
		data := appendCommandsFrame(nil, frameKey{1 << 63, 300}, cmds)
		var got []any
		h := &codec.MsgpackHandle{WriteExt: true}
		h.RawToString = true
		if err := codec.NewDecoderBytes(data, h).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if len(got) != 4 || !same(got[0], frameCommands) || !same(got[1], 1<<63) || !same(got[2], 300) {
			t.Fatalf("the frame reads %v", got[:3])
		}
		list, _ := got[3].([]any)
		if len(list) != len(cmds) {
			t.Fatalf("%d of %d commands", len(list), len(cmds))
		}
		for i, c := range cmds {
			f := list[i].([]any)
			body, ok := f[3].([]byte)
			if s, isString := f[3].(string); !ok && isString {
				body = []byte(s)
			}
			if !same(f[0], uint64(c.Kind)) || !same(f[1], c.ID) || f[2] != c.Principal || !bytes.Equal(body, c.Body) {
				t.Fatalf("command %d reads %v", i, f)
			}
		}
	}
	var got []any
	data := appendConfFrame(nil, frameKey{5, 6}, &confFrame{op: ConfAddLearner, member: 9, context: []byte("c")})
	if err := codec.NewDecoderBytes(data, &codec.MsgpackHandle{WriteExt: true}).Decode(&got); err != nil || len(got) != 6 || !same(got[4], 9) {
		t.Fatalf("the change reads %v, %v", got, err)
	}
}

// same compares numbers as the decoder returns them.
func same(got any, want uint64) bool {
	v := reflect.ValueOf(got)
	if v.CanInt() {
		return uint64(v.Int()) == want
	}
	return v.CanUint() && v.Uint() == want
}

func TestFrameRoundTrip(t *testing.T) {
	for _, cmds := range testFrames() {
		key := frameKey{77, 1}
		data := appendCommandsFrame(nil, key, cmds)
		size := frameOverhead
		for _, c := range cmds {
			size += c.frameSize()
		}
		if len(data) > size {
			t.Fatalf("%d bytes, promised at most %d", len(data), size)
		}
		f, err := decodeFrame(data)
		if err != nil || f.frameKey != key || len(f.commands) != len(cmds) {
			t.Fatalf("%v %v", f.frameKey, err)
		}
		for i, c := range f.commands {
			w := cmds[i]
			if c.Kind != w.Kind || c.ID != w.ID || c.Principal != w.Principal || !bytes.Equal(c.Body, w.Body) {
				t.Fatalf("command %d is %+v, was %+v", i, c, w)
			}
		}
		if k, kind, err := checkFrame(data); err != nil || k != key || kind != frameCommands {
			t.Fatal(k, kind, err)
		}
		if k, _, err := peekFrame(data); err != nil || k != key {
			t.Fatal(k, err)
		}
	}
}

// TestBadFrames: each frame cut short, or with more after it, is refused.
func TestBadFrames(t *testing.T) {
	data := appendCommandsFrame(nil, frameKey{1, 2}, []*Command{{Kind: 1, ID: 300, Principal: "p", Body: []byte("body")}})
	conf := appendConfFrame(nil, frameKey{1, 2}, &confFrame{op: ConfRemove, member: 3, context: []byte("c")})
	for _, good := range [][]byte{data, conf} {
		for n := range len(good) {
			bad := good[:n]
			if _, err := decodeFrame(bad); !errors.Is(err, errFrame) {
				t.Fatalf("%x: %v", bad, err)
			}
			if _, _, err := checkFrame(bad); !errors.Is(err, errFrame) {
				t.Fatalf("%x: %v", bad, err)
			}
		}
		if _, err := decodeFrame(append(bytes.Clone(good), 0)); !errors.Is(err, errFrame) {
			t.Fatalf("a longer frame: %v", err)
		}
	}
}

// FuzzFrame: whatever decodes also checks, and both agree with what is encoded
// anew; nothing crashes or takes more memory than the bytes justify.
func FuzzFrame(f *testing.F) {
	f.Add(appendCommandsFrame(nil, frameKey{1, 2}, []*Command{{Kind: 1, ID: 300, Principal: "p", Body: []byte("body")}}))
	f.Add(appendConfFrame(nil, frameKey{1, 2}, &confFrame{op: ConfRemove, member: 3, context: []byte("c")}))
	f.Add([]byte{0x94, 1, 1, 1, 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		fr, err := decodeFrame(data)
		key, kind, checked := checkFrame(data)
		if (err == nil) != (checked == nil) {
			t.Fatalf("decode says %v, check says %v", err, checked)
		}
		if err != nil {
			return
		}
		if key != fr.frameKey || (kind == frameConf) != (fr.conf != nil) {
			t.Fatalf("%v %d against %v", key, kind, fr)
		}
		var again []byte
		if fr.conf != nil {
			again = appendConfFrame(nil, key, fr.conf)
		} else {
			again = appendCommandsFrame(nil, key, fr.commands)
		}
		if _, err := decodeFrame(again); err != nil {
			t.Fatalf("the frame encoded anew: %v", err)
		}
	})
}
