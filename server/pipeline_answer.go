package server

import (
	"github.com/keelson-io/keelson/api/keelsonpb"
	"google.golang.org/grpc/mem"
)

// answerBatch is a message that is being made.
type answerBatch struct {
	pool  mem.BufferPool
	whole *[]byte
	b     []byte
	large mem.BufferSlice // the response of the only call, when it is large
	bytes int             // of responses
}

// full reports whether the next answer goes into a message of its own.
func (m *answerBatch) full(c *call) bool {
	if m.whole == nil {
		return false
	}
	return m.large != nil || c.size() > answerMessage || len(m.b)+c.size()+answerRoom > cap(m.b)
}

// answerRoom bounds what an answer has beside a response.
const answerRoom = 1 << 10

func (m *answerBatch) add(c *call) {
	size := c.size()
	if m.whole == nil {
		m.whole = m.pool.Get(answerMessage + answerRoom)
		m.b = (*m.whole)[:0]
	}
	a := keelsonpb.Answer{ID: c.id, PushbackMS: c.pushback}
	if c.err != nil {
		s := statusOf(c.err)
		a.Code, a.Message = uint32(s.Code()), s.Message()
		a.Message = a.Message[:min(len(a.Message), answerRoom/2)]
	}
	m.b = keelsonpb.AppendAnswer(m.b, a, size)
	m.bytes += size
	if c.resp == nil {
		return
	}
	if size > answerMessage-answerRoom {
		m.large = c.resp.Buffers
		return
	}
	for _, b := range c.resp.Buffers {
		m.b = append(m.b, b.ReadOnlyData()...)
	}
	c.resp.Buffers.Free()
}

// buffers is the message; it belongs to the caller.
func (m *answerBatch) buffers() mem.BufferSlice {
	*m.whole = m.b
	return append(mem.BufferSlice{mem.NewBuffer(m.whole, m.pool)}, m.large...)
}
