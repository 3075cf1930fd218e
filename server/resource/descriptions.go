package resource

import (
	"bufio"
	"bytes"
	"compress/flate"
	_ "embed" // for the descriptions
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/keelson-io/keelson/server/resource/object"
)

// described is what a kube-apiserver says of its types and fields, deflated. Its
// lines are
//
//	text "TEXT"                        numbered from 0
//	message NAME TEXT
//	FIELD TEXT [required] ["VALUE" …]  of the message above it; the values of an enumeration
//
// `make -C compat kube-descriptions` writes it. It is read when a
// document is first asked for: who runs no kubectl does not pay for it.
//
//go:embed descriptions.deflate
var described []byte

// describedColumns is what it says of the columns of its tables, in the same form: the message
// table.GROUP.KIND has a field for each column, with _ for blanks, and table.default those that
// all kinds may have.
//
//go:embed columns.deflate
var describedColumns []byte

// description is what is said of a message or a field.
type description struct {
	text     string
	required bool
	values   []any
}

// descriptions are by message, and by message and field with a space between.
var (
	descriptions       = sync.OnceValue(func() map[string]description { return mustRead(described) })
	columnDescriptions = sync.OnceValue(func() map[string]description { return mustRead(describedColumns) })
)

func mustRead(deflated []byte) map[string]description {
	out, err := readDescriptions(flate.NewReader(bytes.NewReader(deflated)))
	if err != nil {
		panic("resource: descriptions: " + err.Error()) // part of the program, and read by a test
	}
	return out
}

func readDescriptions(r io.Reader) (map[string]description, error) {
	out := map[string]description{}
	var texts []string
	message := ""
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), " ")
		if name == "text" && strings.HasPrefix(rest, `"`) {
			text, err := strconv.Unquote(rest)
			if err != nil {
				return nil, err
			}
			texts = append(texts, text)
			continue
		}
		if name == "message" && !strings.HasPrefix(rest, "0") && strings.Contains(rest, ".") {
			message, rest, _ = strings.Cut(rest, " ")
			name = message
		} else {
			name = message + " " + name
		}
		d, err := readDescription(rest, texts)
		if err != nil {
			return nil, err
		}
		out[name] = d
	}
	return out, lines.Err()
}

func readDescription(s string, texts []string) (d description, err error) {
	number, rest, _ := strings.Cut(s, " ")
	n, err := strconv.Atoi(number)
	if err != nil || n >= len(texts) {
		return d, strconv.ErrRange
	}
	d.text = texts[n]
	if rest, d.required = strings.CutPrefix(rest, "required"); d.required {
		rest = strings.TrimPrefix(rest, " ")
	}
	for rest != "" {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return d, err
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return d, err
		}
		d.values = append(d.values, value)
		rest = strings.TrimPrefix(rest[len(quoted):], " ")
	}
	return d, nil
}

// describe changes a schema: it says what is known of a message, or of its field.
func (d description) describe(schema object.Object) {
	if d.text != "" {
		schema["description"] = d.text
	}
	if d.values == nil {
		return
	}
	if items := object.Map(schema, "items"); items != nil {
		schema = items
	}
	schema["enum"] = d.values
}
