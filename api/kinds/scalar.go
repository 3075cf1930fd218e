package kinds

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// scalar gives the JSON of a value that is not described by fields of the
// table. An element without wire type and bytes is the zero value.
func scalar(t Type, e element) (v any, zero bool, err error) {
	switch t {
	case String:
		return string(e.bytes), len(e.bytes) == 0, nil
	case Bytes:
		return base64.StdEncoding.EncodeToString(e.bytes), len(e.bytes) == 0, nil
	case Int:
		return int64(e.value), e.value == 0, nil
	case Uint:
		if e.value > math.MaxInt64 {
			return e.value, false, nil
		}
		return int64(e.value), e.value == 0, nil
	case Bool:
		return e.value != 0, e.value == 0, nil
	case Double:
		f := math.Float64frombits(e.value)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, false, fmt.Errorf("%w: number %v", ErrMalformed, f)
		}
		return f, f == 0, nil
	case Time, Micro:
		return timestamp(t, e.bytes)
	case Raw:
		return raw(e.bytes)
	}
	var n uint64
	var text []byte
	var which uint64
	err = each(e.bytes, func(e element) error {
		switch {
		case e.wire == wireBytes:
			text = e.bytes
		case e.wire == wireVarint && t == IntStr && e.number == 1:
			which = e.value
		case e.wire == wireVarint:
			n = e.value
		}
		return nil
	})
	switch t {
	case Duration:
		return time.Duration(n).String(), n == 0, err
	case Quantity:
		if len(text) == 0 {
			return "0", true, err
		}
		return string(text), false, err
	case IntStr:
		if which == 1 {
			return string(text), false, err
		}
		return int64(int32(n)), n == 0 && which == 0, err
	}
	return nil, false, fmt.Errorf("%w: type %q", ErrMalformed, t)
}

// timestamp reads a message of 1: seconds and 2: nanoseconds. One without any
// bytes is no time at all.
func timestamp(t Type, b []byte) (any, bool, error) {
	if len(b) == 0 {
		return nil, true, nil
	}
	var sec, nano int64
	err := each(b, func(e element) error {
		switch {
		case e.wire != wireVarint:
			return fmt.Errorf("%w: time", ErrMalformed)
		case e.number == 1:
			sec = int64(e.value)
		case e.number == 2:
			nano = int64(int32(e.value))
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	if t == Time {
		return time.Unix(sec, 0).UTC().Format(time.RFC3339), false, nil
	}
	return time.Unix(sec, nano-nano%1000).UTC().Format(microLayout), false, nil
}

// microLayout is a time with microseconds.
const microLayout = "2006-01-02T15:04:05.000000Z07:00"

// raw reads a message of 1: JSON.
func raw(b []byte) (v any, zero bool, err error) {
	zero = true
	err = each(b, func(e element) error {
		if e.number == 1 && len(e.bytes) > 0 {
			zero = false
			v, err = parseJSON(e.bytes)
			return err
		}
		return nil
	})
	return v, zero, err
}

func uvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: number", ErrMalformed)
	}
	return v, b[n:], nil
}

// parseJSON reads JSON with numbers as Kubernetes reads them: int64 if they are
// that, else float64.
func parseJSON(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if d.More() {
		return nil, fmt.Errorf("%w: something follows the JSON", ErrMalformed)
	}
	return numbers(v, 0)
}

func numbers(v any, depth int) (_ any, err error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: deeper than %d", ErrMalformed, maxDepth)
	}
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n, nil
		}
		f, err := v.Float64()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		return f, nil
	case map[string]any:
		for k, x := range v {
			if v[k], err = numbers(x, depth+1); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, x := range v {
			if v[i], err = numbers(x, depth+1); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
