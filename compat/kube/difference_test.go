package kube

import (
	"reflect"
	"testing"
)

func TestDifferences(t *testing.T) {
	left, err := Parse(`{"a": 1, "b": [{"x": "<"}, {"x": 2}], "c": null, "d": [1], "e": 9007199254740993}`)
	if err != nil {
		t.Fatal(err)
	}
	right, err := Parse(`{"a": 1, "b": [{"x": ">"}, {"x": 2, "y": {}}], "d": [1, 2], "e": 9007199254740992}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Difference{
		{".b[*].x", `"<"`, `">"`},
		{".b[*].y", "", "{}"},
		{".c", "null", ""},
		{".d", "[1]", "[1,2]"},
		{".e", "9007199254740993", "9007199254740992"},
	}
	if got := Differences(left, right); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if got := Differences(left, left); got != nil {
		t.Errorf("an object differs from itself: %v", got)
	}
}
