package k8s

import (
	"io"
	"strings"
	"testing"
)

func TestCollectCounts(t *testing.T) {
	res, err := collect(strings.NewReader(`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"wrong\n"}
{"Action":"fail","Package":"p","Test":"TestA/x"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p"}
{"Action":"output","Package":"q","Output":"does not build\n"}
{"Action":"fail","Package":"q"}
`), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if res.Top != 3 || res.Passed != 1 || res.Skipped != 1 || res.Failed != 3 || len(res.Failures) != 3 {
		t.Errorf("got %+v", res)
	}
	if f := res.Failures[2]; f.Test != "q" || f.Output != "does not build\n" {
		t.Errorf("a package that does not build: %+v", f)
	}
}
