package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

var update = flag.Bool("update", false, "write testdata/display again")

// misleading are reasons and tickets that try to make an approver see something else than what is signed. Statements
// refuse control characters themselves (statement.CheckText), so these are what still gets through.
var misleading = map[string]func(*statement.Request){
	"plain":               func(*statement.Request) {},
	"bidi-override":       func(r *statement.Request) { r.Reason = "restart \u202enimda-bd\u202c now" },
	"bidi-isolates":       func(r *statement.Request) { r.Reason = "\u2067role web-deploy\u2069 \u2066harmless\u2069" },
	"zero-width":          func(r *statement.Request) { r.Reason = "IN\u200bC-\u200d42\ufeff" },
	"looks-like-fields":   func(r *statement.Request) { r.Reason = strings.Repeat(" ", 58) + "role        web-deploy" },
	"very-long":           func(r *statement.Request) { r.Reason = strings.Repeat("lorem ipsum ", 82) + "grant root" },
	"no-spaces":           func(r *statement.Request) { r.Reason = strings.Repeat("x", 1000) },
	"invisible-filler":    func(r *statement.Request) { r.Reason = "ok\u3164\u3164\u3164\u2800\u00a0\u2003end" },
	"line-separators":     func(r *statement.Request) { r.Reason = "ok\u2028  role        nothing\u2029x" },
	"stacked-accents":     func(r *statement.Request) { r.Reason = "a" + strings.Repeat("\u0301", 40) + "b" },
	"tags-and-selectors":  func(r *statement.Request) { r.Reason = "a\U000e0061\ufe0f\U000e0100b" },
	"escape-spelt-out":    func(r *statement.Request) { r.Reason = `\x1b[2J \u202e` },
	"right-to-left-words": func(r *statement.Request) { r.Reason = "שלום 42 مرحبا db1" },
	"ticket":              func(r *statement.Request) { r.Ticket = "\u202eCNI\u202c-42" },
	"many-hosts":          func(r *statement.Request) { r.Hosts = []statement.HostName{"db1", "db2", "db3", "db4"} },
	"longer-than-role":    func(r *statement.Request) { r.Duration = 30 * 3600 },
}

// TestMisleadingDisplay renders the corpus as an approver sees it and compares it with what a person has read and
// found plain (testdata/display). Whatever the text, no unsafe rune is shown and nothing that was signed is hidden.
func TestMisleadingDisplay(t *testing.T) {
	for name, change := range misleading {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "127.0.0.1:1")
			shown := s.shown(change)
			for _, r := range shown {
				if r != '\n' && (r < 0x20 || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp)) {
					t.Errorf("%U is shown as it is", r)
				}
			}
			golden := filepath.Join("testdata", "display", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(shown), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if shown != string(want) {
				t.Errorf("shown:\n%s\nwant:\n%s", shown, want)
			}
		})
	}
}

// frozenNow is when the corpus is looked at; the requests in it were made a minute before.
const frozenNow = statement.Time(1795424400)

// shown is the card of a request, with keys and ids, which are random here, replaced by words.
func (s *scene) shown(change func(*statement.Request)) string {
	s.t.Helper()
	certified := s.public(newKey(s.t))
	proof := s.ask("alice", func(r *statement.Request) {
		r.Created, r.NotAfter, r.Expires = frozenNow-60, frozenNow+240, frozenNow-60+statement.Time(statement.Day)
		r.Keys = []statement.Key{certified}
		change(r)
	})
	r, err := s.read("bob", broker.Dossier{Request: proof})
	s.must(err)
	var out bytes.Buffer
	term.New(&out, &out, term.Options{}).Card(r.card(s.pinned("bob"), frozenNow))
	return strings.NewReplacer(
		string(r.id()), "r-STEM", s.public(s.keys["alice"]).Fingerprint(), "SHA256:ALICE", certified.Fingerprint(), "SHA256:FRESH",
	).Replace(out.String())
}

// TestApproverSeesWhatIsSigned: who, role, hosts, duration, gifts and the key's fingerprint come from signed bytes and policy.
func TestApproverSeesWhatIsSigned(t *testing.T) {
	s := newScene(t, "127.0.0.1:1")
	shown := s.shown(func(r *statement.Request) { r.Ticket = "INC-42" })
	for _, want := range []string{
		"alice, account alice", "db-admin", "db1", "log in as postgres", "sudo as root: /usr/bin/systemctl restart postgresql",
		"sudo as postgres: ALL commands", "1h", "│ INC-42 replica lag", "│ INC-42", "SHA256:ALICE", "SHA256:FRESH", "1 of bob, carol, gwen",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not shown in\n%s", want, shown)
		}
	}
}
