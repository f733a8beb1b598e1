package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const example = "../../packaging/examples/host.yaml"

func TestTheExampleIsWhatYouGetWithoutIt(t *testing.T) {
	without, err := readConfig("testdata/none.yaml")
	if err != nil {
		t.Fatal(err)
	}
	with, err := readConfig(example)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(without, with); diff != "" {
		t.Errorf("(-without +with):\n%s", diff)
	}
}

// What the example shows behind # is right too.
func TestTheExamplesExampleIsTaken(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	shown := strings.NewReplacer("exempt: []", "exempt:", "\n#  ", "\n  ").Replace(string(text))
	c, err := parseConfig("host.yaml", []byte(shown))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Exempt) != 1 || c.Exempt[0].Account != "backup" || c.Exempt[0].As != "root" || len(c.Exempt[0].Commands) != 1 {
		t.Errorf("%+v", c)
	}
}
