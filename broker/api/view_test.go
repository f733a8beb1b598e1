package api

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// TestEveryFieldOfTheContractIsAlwaysThere encodes empty views: scripts find DESIGN §9's fields whatever they hold.
func TestEveryFieldOfTheContractIsAlwaysThere(t *testing.T) {
	for fields, view := range map[string]any{
		"id role scope person state reason ticket filed_at expires_at needs decisions grant": RequestView{},
		"id request person role hosts from until phase":                                      GrantView{},
		"person verdict reason at":                                                           DecisionView{},
	} {
		encoded, err := json.Marshal(view)
		if err != nil {
			t.Fatal(err)
		}
		for field := range strings.FieldsSeq(fields) {
			if !strings.Contains(string(encoded), `"`+field+`":`) {
				t.Errorf("%T without %s: %s", view, field, encoded)
			}
		}
	}
}
