package resource

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/keelson-io/keelson/server/resource/object"
)

const (
	yamlType     = "application/yaml"
	protobufType = "application/vnd.kubernetes.protobuf"
)

// mediaType is the request's content type without parameters; JSON when it is
// not said.
func mediaType(r *http.Request) string {
	given := r.Header.Get("Content-Type")
	if given == "" {
		return jsonType
	}
	media, _, err := mime.ParseMediaType(given)
	if err != nil {
		return given
	}
	return media
}

// sent is a request's body as an object.
type sent struct {
	object     object.Object
	duplicates []string // of JSON: names that come twice
}

// decodeBody reads the body in any of the formats that clients send.
func (c *call) decodeBody() (*sent, error) {
	b, err := c.body()
	if err != nil {
		return nil, err
	}
	s, err := decodeAs(mediaType(c.r), b)
	if err != nil && asFailure(err) == nil {
		return nil, badRequest("the object provided is unrecognized (must be of type %s): %v (%s)", c.kind.Name, err, summary(b))
	}
	return s, err
}

// summary is the beginning of a body, for the message about it.
func summary(b []byte) string {
	const most = 30
	more := ""
	if len(b) > most {
		b, more = b[:most], " ..."
	}
	switch {
	case len(b) == 0:
		return "<empty>"
	case b[0] == '{':
		return string(b) + more
	}
	return hex.EncodeToString(b) + more
}

// received is the object that a write brings, and whether it is a dry run.
func (c *call) received() (*sent, bool, error) {
	dry, err := c.dryRun()
	if err != nil {
		return nil, false, err
	}
	s, err := c.decodeBody()
	return s, dry, err
}

// receivedObject is received for an object of the kind that the path names.
func (c *call) receivedObject() (object.Object, bool, error) {
	s, dry, err := c.received()
	if err == nil {
		err = identify(c.kind, s.object, c.Namespace)
	}
	if err == nil {
		err = c.validateFields(s)
	}
	if err != nil {
		return nil, false, err
	}
	return s.object, dry, nil
}

// checkName refuses an object that is not the one that the path names.
func (c *call) checkName(o object.Object) error {
	switch name := object.String(o, "metadata", "name"); name {
	case c.Name:
		return nil
	case "":
		return badRequest("the name of the object (%s based on URL) was undeterminable: name must be provided", c.Name)
	default:
		return badRequest("the name of the object (%s) does not match the name on the URL (%s)", name, c.Name)
	}
}

// decodeAs reads an object. An error is a Failure only when it is about the format.
func decodeAs(media string, b []byte) (*sent, error) {
	switch {
	case bytes.HasPrefix(b, protobufPrefix):
		j, err := decodeProtobuf(b)
		if err != nil {
			return nil, err
		}
		b = j
	case media == protobufType:
		return nil, fmt.Errorf("provided data does not appear to be a protobuf message, expected prefix %v", protobufPrefix)
	case media == yamlType:
		j, err := yaml.YAMLToJSON(b)
		if err != nil {
			return nil, err
		}
		b = j
	case media != jsonType:
		return nil, unsupportedMedia([]string{jsonType, yamlType, protobufType})
	}
	o, duplicates, err := object.Decode(b)
	if err != nil {
		var head struct {
			APIVersion string `json:"apiVersion,omitempty"`
			Kind       string `json:"kind,omitempty"`
		}
		if worded := json.Unmarshal(b, &head); worded != nil {
			err = worded // in the words that clients know
		}
		return nil, fmt.Errorf("couldn't get version/kind; json parse error: %w", err)
	}
	return &sent{o, duplicates}, nil
}

// validateFields makes an object what its kind's type makes of it, and refuses
// what the type cannot have.
func (c *call) validateFields(s *sent) error {
	err := c.complain(s)
	if err == nil {
		err = c.kind.conform(s.object)
	}
	if err != nil {
		return badRequest("%s in version %q cannot be handled as a %s: %v", c.kind.Name, c.kind.Version, c.kind.Name, err)
	}
	return nil
}

// complain does what fieldValidation asks for: names that come twice or that the
// kind does not know are refused, or named in warnings.
func (c *call) complain(s *sent) error {
	mode := c.query.Get("fieldValidation")
	if mode == "Ignore" {
		return nil
	}
	var complaints []string
	for _, d := range s.duplicates {
		complaints = append(complaints, `duplicate field "`+d+`"`)
	}
	for _, u := range unknownFields(c.kind, s.object) {
		complaints = append(complaints, `unknown field "`+u+`"`)
	}
	if mode == "Strict" && len(complaints) > 0 {
		return errors.New("strict decoding error: " + strings.Join(complaints, ", "))
	}
	for _, w := range complaints {
		c.warn(w)
	}
	return nil
}

// warn tells the user something beside the answer, once.
func (c *call) warn(text string) {
	h, line := c.w.Header(), "299 - "+string(object.AppendString(nil, text))
	if !slices.Contains(h.Values("Warning"), line) {
		h.Add("Warning", line)
	}
}
