package differential

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A symbol is a number near one of these bases; the distance says which one is
// meant. Nothing real comes near: revisions stay small, lease ids chosen by the
// generator too.
const (
	symCurrent   int64 = 1 << 61 // + d: the store's revision + d
	symCompacted int64 = 1 << 60 // + d: the compacted revision + d
	symLease     int64 = 1 << 59 // + n: the n-th lease granted with a server-chosen id, modulo their number
	symSpan      int64 = 1 << 24

	// absentLease stands for a server-chosen lease when none was granted yet.
	absentLease int64 = 7_777_777
)

// state is what symbols refer to, and what logins need. Revisions are the same on
// both sides; each side keeps its own server-chosen lease ids.
type state struct {
	revision  int64
	compacted int64
	enabled   bool              // authentication
	passwords map[string]string // of users who have changed theirs
}

func (st state) password(user string) string {
	if p := st.passwords[user]; p != "" {
		return p
	}
	return password(user)
}

// resolve returns a copy of the message in which every symbol is a number.
func resolve(m proto.Message, st state, leases []int64) proto.Message {
	out := proto.Clone(m)
	mapInt64(out.ProtoReflect(), func(v int64) int64 {
		switch {
		case near(v, symCurrent):
			return st.revision + v - symCurrent
		case near(v, symCompacted):
			return st.compacted + v - symCompacted
		case near(v, symLease):
			if len(leases) == 0 {
				return absentLease
			}
			return leases[int(v-symLease)%len(leases)]
		}
		return v
	})
	return out
}

func near(v, base int64) bool { return v > base-symSpan && v < base+symSpan }

// mapInt64 replaces every set int64 of the message and all below it.
func mapInt64(m protoreflect.Message, f func(int64) int64) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				mapInt64(v.List().Get(i).Message(), f)
			}
		case fd.IsList():
		case fd.Message() != nil:
			mapInt64(v.Message(), f)
		case fd.Kind() == protoreflect.Int64Kind:
			if old := v.Int(); f(old) != old {
				m.Set(fd, protoreflect.ValueOfInt64(f(old)))
			}
		}
		return true
	})
}
