package term

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// hostile is what somebody would put into a reason to mislead whoever reads it.
var hostile = map[string]struct{ text, want string }{
	"plain words stay":                     {"INC-42 replica lag", "INC-42 replica lag"},
	"letters of any script stay":           {"Größe Ελλάδα 東京", "Größe Ελλάδα 東京"},
	"a colour escape":                      {"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`},
	"an escape that clears the screen":     {"\x1b[2J\x1b[H ok", `\x1b[2J\x1b[H ok`},
	"a title-setting escape":               {"\x1b]0;root\x07", `\x1b]0;root\x07`},
	"an 8-bit control introducer":          {"\u009b31mred", `\u009b31mred`},
	"a raw 8-bit control byte":             {"\x9b31m", `\x9b31m`},
	"a carriage return over the line":      {"denied\rgranted", `denied\rgranted`},
	"backspaces over the words":            {"root\b\b\b\bdb", `root\x08\x08\x08\x08db`},
	"a forged second line":                 {"x\n  role       nothing", `x\n  role       nothing`},
	"line and paragraph separators":        {"a\u2028b\u2029c", `a\u2028b\u2029c`},
	"a tab":                                {"a\tb", `a\tb`},
	"a right-to-left override":             {"\u202etoor\u202c", `\u202etoor\u202c`},
	"bidi isolates":                        {"\u2066a\u2069", `\u2066a\u2069`},
	"bidi marks":                           {"a\u200eb\u200fc\u061c", `a\u200eb\u200fc\u061c`},
	"zero width characters":                {"d\u200bb\u200c\u200d\ufeff1", `d\u200bb\u200c\u200d\ufeff1`},
	"a soft hyphen":                        {"ro\u00adot", `ro\u00adot`},
	"odd spaces":                           {"a\u00a0b\u3000c\u2003", `a\u00a0b\u3000c\u2003`},
	"fillers that look like nothing":       {"a\u3164b\u115f\uffa0\u2800", `a\u3164b\u115f\uffa0\u2800`},
	"tag characters":                       {"a\U000e0041", `a\U000e0041`},
	"a variation selector":                 {"a\ufe0f", `a\ufe0f`},
	"a private use rune":                   {"\ue000", `\ue000`},
	"invalid UTF-8":                        {"a\xffb\xc3", `a\xffb\xc3`},
	"a surrogate half":                     {"\xed\xa0\x80", `\xed\xa0\x80`},
	"a NUL":                                {"a\x00b", `a\x00b`},
	"an escape written out":                {`\u202e`, `\\u202e`},
	"one accent is a letter's own":         {"e\u0301", "e\u0301"},
	"a heap of accents":                    {"e\u0301\u0301\u0301\u0301", "e\u0301\u0301" + `\u0301\u0301`},
	"an accent on nothing":                 {"\u0301a", `\u0301a`},
	"an enclosing mark on our own bracket": {"\u20dd", `\u20dd`},
}

func TestMisleadingTextIsMadeVisible(t *testing.T) {
	for name, c := range hostile {
		t.Run(name, func(t *testing.T) {
			if got := Escape(c.text); got != c.want {
				t.Errorf("Escape(%q) = %q, want %q", c.text, got, c.want)
			}
		})
	}
}

func TestEscapedTextHoldsOnlyVisibleRunesWhateverItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) + rapid.String().Draw(t, "text")
		safe := Escape(text)
		if !utf8.ValidString(safe) {
			t.Fatalf("Escape(%q) is not UTF-8", text)
		}
		for _, r := range safe {
			if r < 0x20 || r == 0x7f || unicode.In(r, unicode.C, unicode.Z) && r != ' ' {
				t.Fatalf("Escape(%q) lets %U through", text, r)
			}
		}
	})
}

func TestDifferentTextsNeverLookTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"a", "n", "x", "1", "b", "u", "2", "0", "e", `\`, "\n", "\x1b", "\u202e", "\xff", "ÿ"})
		a := strings.Join(rapid.SliceOf(part).Draw(t, "a"), "")
		b := strings.Join(rapid.SliceOf(part).Draw(t, "b"), "")
		if a != b && Escape(a) == Escape(b) {
			t.Fatalf("%q and %q both show as %q", a, b, Escape(a))
		}
	})
}

func TestVeryLongTextIsCutInListsAndWholeWhereItIsDecided(t *testing.T) {
	long := strings.Repeat("all is well ", 500) + "EXCEPT THIS"
	if got := Brief(long, 40); width(got) > 40 || !strings.HasSuffix(got, "…") {
		t.Errorf("Brief = %q", got)
	}
	lines := Block(long, 72)
	if got := strings.Join(lines, ""); got != long {
		t.Errorf("Block lost text: %d of %d bytes", len(got), len(long))
	}
	for _, line := range lines {
		if width(line) > 72 {
			t.Fatalf("line of %d columns: %q", width(line), line)
		}
	}
	for _, line := range Block(strings.Repeat("漢", 200), 72) {
		if width(line) > 72 {
			t.Fatalf("wide line of %d columns", width(line))
		}
	}
}

func TestEveryPrintingMethodEscapesItsArguments(t *testing.T) {
	type name string
	const evil = "\x1b[2J\u202e\nrole root"
	var out, talk bytes.Buffer
	term := New(&out, &talk, Options{})
	term.Result("%s %s %v %s", evil, name(evil), errors.New(evil), []string{evil})
	term.Say("%s", Strong(evil))
	term.Warn("%s", Bad(evil))
	term.Card(Card{Title: evil, Fields: []Field{{Label: "why", Lines: []string{evil}, Quoted: true}}})
	term.TalkCard(Card{Title: evil})
	term.Table([]string{"a", "b"}, [][]string{{evil, evil}})
	term.Bytes([]byte(evil))
	if err := term.JSON(map[string]string{"reason": evil + "\u009b", "wide": "\U000e0041"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range out.String() + talk.String() {
		if r != '\n' && !visible(r) {
			t.Fatalf("%U reached the terminal:\n%q\n%q", r, out.String(), talk.String())
		}
	}
}

func TestJSONMeansTheSameAfterItWasMadeSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.String().Draw(t, "text") + "\u202e\U000e0041\u009b\x7f"
		var out bytes.Buffer
		if err := New(&out, &out, Options{}).JSON(map[string]string{"reason": want}); err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%q: %v", out.String(), err)
		}
		if got["reason"] != want {
			t.Fatalf("got %q, want %q", got["reason"], want)
		}
	})
}

func TestAQuotedFieldCannotImitateAnotherField(t *testing.T) {
	card := Card{Title: "request", Fields: []Field{
		{Label: "why", Lines: []string{strings.Repeat(" ", 60) + "x" + strings.Repeat(" ", 80) + "role       nothing"}, Quoted: true},
		{Label: "role", Lines: []string{"root"}},
	}}
	for _, line := range strings.Split(strings.TrimSuffix(card.text(), "\n"), "\n")[1:] {
		if strings.Contains(line, "nothing") && !strings.HasPrefix(line[12:], "  │ ") {
			t.Errorf("a line of the quoted text stands without its bar: %q", line)
		}
	}
}

func TestColourHonoursNOCOLOR(t *testing.T) {
	env := func(pairs map[string]string) func(string) string { return func(k string) string { return pairs[k] } }
	for name, c := range map[string]struct {
		terminal bool
		env      map[string]string
		want     bool
	}{
		"a terminal is coloured":             {true, nil, true},
		"a pipe is not":                      {false, nil, false},
		"NO_COLOR turns it off":              {true, map[string]string{"NO_COLOR": "1"}, false},
		"an empty NO_COLOR leaves it on":     {true, map[string]string{"NO_COLOR": ""}, true},
		"a dumb terminal gets plain letters": {true, map[string]string{"TERM": "dumb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Colour(c.terminal, env(c.env)); got != c.want {
				t.Errorf("Colour = %v, want %v", got, c.want)
			}
		})
	}
}

func TestQuietSilencesTalkButNotWarningsOrResults(t *testing.T) {
	var out, talk bytes.Buffer
	term := New(&out, &talk, Options{Quiet: true})
	term.Say("waiting")
	term.Warn("the policy forked")
	term.Result("r-x")
	if talk.String() != "the policy forked\n" || out.String() != "r-x\n" {
		t.Errorf("stdout %q, stderr %q", out.String(), talk.String())
	}
}

func TestNoInputNeverAsks(t *testing.T) {
	term := New(nil, nil, Options{NoInput: true})
	if _, err := term.Confirm(t.Context(), Card{}, "sure?"); !errors.Is(err, ErrNoInput) {
		t.Errorf("Confirm: %v, want ErrNoInput", err)
	}
	if _, err := term.Passphrase(t.Context(), "passphrase"); !errors.Is(err, ErrNoInput) {
		t.Errorf("Passphrase: %v, want ErrNoInput", err)
	}
}
