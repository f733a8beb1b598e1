package pamtest

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pim-ssh/pam/wire"
)

const wireVectors = "../wire/testdata/"

// vectorRunner is client.c under ASan and UBSan with testdata/vectors.c around it.
func vectorRunner(t testing.TB) string {
	t.Helper()
	source, err := filepath.Abs("testdata/vectors.c")
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"-D_DEFAULT_SOURCE"}
	path, err := Build(builds, Program{Output: "vectors", Sources: []string{source}, Flags: flags}, Sanitized)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestClientAgreesWithWireOnEveryVector(t *testing.T) {
	runner := vectorRunner(t)
	for sentence, args := range map[string][]string{
		"questions are written byte for byte, and never past the buffer":    {"questions", wireVectors + "questions.tsv"},
		"answers are read alike, and the bad ones refused":                  {"answers", wireVectors + "answers.tsv"},
		"no answer with a byte changed, cut or added is read out of bounds": {"flip", wireVectors + "answers.tsv"},
	} {
		t.Run(sentence, func(t *testing.T) {
			if out, err := exec.Command(runner, args...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestTextForThePersonIsPrintableUTF8(t *testing.T) {
	runner := vectorRunner(t)
	for sentence, c := range map[string]struct{ in, want string }{
		"plain words stay":                     {"10 minutes left: pim-ssh extend g-abc", "10 minutes left: pim-ssh extend g-abc"},
		"letters of other scripts stay":        {"zoë 日本語 𝔛", "zoë 日本語 𝔛"},
		"escape sequences lose their escape":   {"\x1b[31mred\x1b[0m", "[31mred[0m"},
		"newlines, tabs and bells go":          {"a\nb\rc\td\ae\x7f", "abcde"},
		"C1 controls go, as bytes and as code": {"a\x9bb\u009bc", "abc"},
		"text that turns around goes":          {"a\u202eb\u2066c\u200fd\u061ce", "abcde"},
		"line separators go":                   {"a\u2028b\u2029c", "abc"},
		"overlong forms go":                    {"a\xc0\xafb\xe0\x80\xafc\xf0\x80\x80\xafd", "abcd"},
		"surrogates and beyond Unicode go":     {"a\xed\xa0\x80b\xf4\x90\x80\x80c\xf8\x88\x80\x80\x80d", "abcd"},
		"a character cut at the end goes":      {"ab\xe6\x97", "ab"},
		"a lone continuation goes":             {"a\x80\xbfb", "ab"},
		"nothing stays nothing":                {"", ""},
	} {
		t.Run(sentence, func(t *testing.T) {
			cmd := exec.Command(runner, "clean")
			cmd.Stdin = strings.NewReader(c.in)
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != c.want {
				t.Errorf("%q became %q (%v), want %q", c.in, out, err, c.want)
			}
		})
	}
}

func TestOnlyAWholeWordOfAListIsNamed(t *testing.T) {
	runner := vectorRunner(t)
	for sentence, c := range map[string]struct {
		list, name string
		want       bool
	}{
		"the one word":              {"root", "root", true},
		"the first":                 {"postgres root www", "postgres", true},
		"one between":               {"postgres root www", "root", true},
		"the last":                  {"postgres root www", "www", true},
		"the beginning of a word":   {"postgres", "post", false},
		"the end of a word":         {"postgres", "gres", false},
		"a word and more":           {"post", "postgres", false},
		"two words at once":         {"postgres root", "postgres root", false},
		"another case":              {"root", "ROOT", false},
		"nobody":                    {"postgres root", "", false},
		"nobody, of nobody":         {"", "", false},
		"a space, of spaces":        {"   ", " ", false},
		"nobody, between two words": {"postgres  root", "", false},
		"of an empty list":          {"", "root", false},
		"behind two spaces":         {"postgres  root", "root", true},
	} {
		t.Run(sentence, func(t *testing.T) {
			err := exec.Command(runner, "names", c.list, c.name).Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 1 && !c.want || err == nil && c.want {
				return
			}
			t.Errorf("%v, want %v", err, c.want)
		})
	}
}

// FuzzClientReadsAnswersAsWireDoes gives every input to the Go and, under ASan
// and UBSan, the C decoder, and wants one opinion.
func FuzzClientReadsAnswersAsWireDoes(f *testing.F) {
	text, err := os.ReadFile(wireVectors + "answers.tsv")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(line, "\t"); len(fields) > 2 {
			b, _ := hex.DecodeString(fields[1])
			f.Add(b)
		}
	}
	cmd := exec.Command(vectorRunner(f), "serve")
	cmd.Stderr = os.Stderr
	in, _ := cmd.StdinPipe()
	pipe, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			f.Errorf("the C decoder ended with %v", err)
		}
	})
	out := bufio.NewReader(pipe)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 60000 {
			return
		}
		if _, err := in.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
			t.Fatal(err)
		}
		c, ok := readDecoded(t, out)
		want, err := wire.DecodeAnswer(b)
		if c != want || ok != (err == nil) {
			t.Errorf("%x: C read %+v (%v), Go %+v (%v)", b, c, ok, want, err)
		}
	})
}

// readDecoded reads what `vectors serve` says about one frame.
func readDecoded(t *testing.T, r io.Reader) (wire.Answer, bool) {
	t.Helper()
	var head struct {
		OK, Allow byte
		Seconds   uint32
	}
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		t.Fatal(err)
	}
	var s [4]string
	for i := range s {
		var n uint16
		if err := binary.Read(r, binary.LittleEndian, &n); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		s[i] = string(b)
	}
	return wire.Answer{Allow: head.Allow == 1, Seconds: head.Seconds, Principal: s[0], Session: s[1], RunAs: s[2], Text: s[3]}, head.OK == 1
}
