package object

// Merge returns o with a JSON merge patch applied (RFC 7386): null removes,
// objects merge, everything else replaces.
func Merge(o Object, patch Object) Object {
	out := make(Object, len(o)+len(patch))
	for name, v := range o {
		out[name] = v
	}
	for name, v := range patch {
		switch p := v.(type) {
		case nil:
			delete(out, name)
		case Object:
			below, _ := out[name].(Object)
			out[name] = Merge(below, p)
		default:
			out[name] = v
		}
	}
	return out
}
