package audit

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"pim-ssh/broker/statement"
	"pim-ssh/broker/statement/signtest"
)

var (
	here    = statement.HashOf([]byte("deployment"))
	brokers = map[statement.BrokerName]statement.Key{"b1": logKey("b1 log"), "b2": logKey("b2 log")}
	head    = Checkpoint{Deployment: here, LogHead: statement.LogHead{Size: 42, Root: statement.HashOf([]byte("root"))}, State: statement.HashOf([]byte("state"))}
)

func signed(t testing.TB, c Checkpoint, key ssh.Signer) []byte {
	t.Helper()
	text, err := Sign(c, key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestACheckpointIsItsGoldenFileAndOpensAgain(t *testing.T) {
	text := signed(t, head, signtest.Ed25519("b1 log"))
	golden, err := os.ReadFile("testdata/checkpoint")
	if err != nil || string(golden) != string(text) {
		t.Errorf("got %q, want %q (%v)", text, golden, err)
	}
	opened, err := Open(text, here, brokers)
	if err != nil || opened.Checkpoint != head || opened.Broker != "b1" || string(opened.Text) != string(text) {
		t.Errorf("%+v %v", opened, err)
	}
	if opened, err := Open(signed(t, head, signtest.Ed25519("b2 log")), here, brokers); err != nil || opened.Broker != "b2" {
		t.Errorf("%+v %v", opened, err)
	}
}

func TestNoByteOfACheckpointCanBeChanged(t *testing.T) {
	text := signed(t, head, signtest.Ed25519("b1 log"))
	for at := range text {
		for bit := range 8 {
			changed := []byte(string(text))
			changed[at] ^= 1 << bit
			if opened, err := Open(changed, here, brokers); err == nil {
				t.Errorf("byte %d, bit %d: taken for %+v", at, bit, opened.Checkpoint)
			}
		}
	}
}

func TestCheckpointsThatAreNobodysWordAreRefused(t *testing.T) {
	elsewhere := head
	elsewhere.Deployment = statement.HashOf([]byte("elsewhere"))
	good := string(signed(t, head, signtest.Ed25519("b1 log")))
	twice, err := note.Sign(&note.Note{Text: head.text()}, noteOf(t, "b1 log"), noteOf(t, "b2 log"))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"nothing": "", "no signature": head.text() + "\n", "a key that no broker has": string(signed(t, head, signtest.Ed25519("mallory"))),
		"another deployment's": string(signed(t, elsewhere, signtest.Ed25519("b1 log"))), "two signatures": string(twice),
		"trailing data": good + "\n", "signed twice by one": good + good[strings.Index(good, "\n—")+1:],
		"a size with a plus": noted(t, strings.Replace(head.text(), "42", "+42", 1)), "a size with a zero": noted(t, strings.Replace(head.text(), "42", "042", 1)),
		"a line more": noted(t, head.text()+"more\n"), "a state in capitals": noted(t, strings.ToUpper(head.text())),
		"an absurd size": noted(t, strings.Replace(head.text(), "42", "1099511627777", 1)), "too long": good + strings.Repeat("x", MaxCheckpoint),
	} {
		if opened, err := Open([]byte(text), here, brokers); err == nil {
			t.Errorf("%s: taken for %+v", what, opened.Checkpoint)
		}
	}
	if _, err := Open([]byte(good), here, nil); err == nil {
		t.Error("opened with no key at all")
	}
	if _, err := Sign(head, signtest.ECDSA("log")); err == nil {
		t.Error("signed with a key of another type")
	}
}

func noteOf(t *testing.T, name string) note.Signer {
	t.Helper()
	known, err := verifier(here, logKey(name))
	if err != nil {
		t.Fatal(err)
	}
	return noteSigner{known, signtest.Ed25519(name)}
}

// noted signs any text as b1.
func noted(t *testing.T, text string) string {
	t.Helper()
	all, err := note.Sign(&note.Note{Text: text}, noteOf(t, "b1 log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func FuzzOpen(f *testing.F) {
	f.Add(signed(f, head, signtest.Ed25519("b1 log")))
	f.Add([]byte(head.text()))
	f.Fuzz(func(t *testing.T, text []byte) {
		opened, err := Open(text, here, brokers)
		if err == nil && string(signed(t, opened.Checkpoint, signtest.Ed25519(string(opened.Broker)+" log"))) != string(text) {
			t.Errorf("%q has another spelling", text)
		}
	})
}

func FuzzReadEntries(f *testing.F) {
	f.Add(bundles(0, some(3))[0].Data, uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, width uint64) {
		if width == 0 || width > Width {
			return
		}
		entries, err := readEntries(data, width)
		if err == nil && string(bundles(0, entries)[0].Data) != string(data) {
			t.Errorf("%q is framed in two ways", data)
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("tile/0/x001/067.p/40")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := CheckPath(text); err == nil && strings.Contains(text, "..") {
			t.Errorf("%q leads elsewhere", text)
		}
	})
}
