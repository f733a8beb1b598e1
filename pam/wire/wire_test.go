package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// row is one line of a vector file: a sentence, the bytes, what they are, and
// what they say. The C side reads the same files.
type row struct {
	sentence string
	bytes    []byte
	is       string
	says     []string
}

func vectors(t testing.TB, name string) []row {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		b, err := hex.DecodeString(f[1])
		if err != nil {
			t.Fatalf("%s: %s: %v", name, f[0], err)
		}
		rows = append(rows, row{f[0], b, f[2], f[3:]})
	}
	return rows
}

func TestQuestionVectors(t *testing.T) {
	for _, v := range vectors(t, "questions.tsv") {
		t.Run(v.sentence, func(t *testing.T) {
			q, err := DecodeQuestion(v.bytes)
			if v.is == "bad" {
				if err == nil {
					t.Fatalf("read as %#v, want an error", q)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := blank(v.is[0])
			for i, f := range want.fields() {
				*f = v.says[i]
			}
			if diff := cmp.Diff(want, q); diff != "" {
				t.Errorf("read differs (-want +got):\n%s", diff)
			}
			if b, err := EncodeQuestion(q); err != nil || !bytes.Equal(b, v.bytes) {
				t.Errorf("written as %x (%v), want %x", b, err, v.bytes)
			}
		})
	}
}

func TestAnswerVectors(t *testing.T) {
	for _, v := range vectors(t, "answers.tsv") {
		t.Run(v.sentence, func(t *testing.T) {
			a, err := ReadAnswer(iotest.OneByteReader(bytes.NewReader(v.bytes)))
			if v.is == "bad" {
				if err == nil || a != (Answer{}) {
					t.Fatalf("read as %+v with error %v, want a denial and an error", a, err)
				}
				return
			}
			seconds, bad := strconv.ParseUint(v.says[0], 10, 32)
			want := Answer{Allow: v.is == "allow", Seconds: uint32(seconds), Principal: v.says[1], Session: v.says[2], RunAs: v.says[3], Text: v.says[4]}
			if err != nil || bad != nil || a != want {
				t.Errorf("read as %+v (%v, %v), want %+v", a, err, bad, want)
			}
			if v.bytes[8] > allowed {
				return // such a verdict denies, but nobody writes it
			}
			if b, err := EncodeAnswer(a); err != nil || !bytes.Equal(b, v.bytes) {
				t.Errorf("written as %x (%v), want %x", b, err, v.bytes)
			}
		})
	}
}

func TestTheZeroAnswerDenies(t *testing.T) {
	b, err := EncodeAnswer(Answer{})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := DecodeAnswer(b); err != nil || a.Allow {
		t.Errorf("read back as %+v, %v", a, err)
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	questions := map[string]struct {
		q    Question
		want error
	}{
		"a NUL in a field":             {&Account{User: "al\x00ce"}, errNUL},
		"a field over 65535 bytes":     {&Open{AuthInfo: strings.Repeat("x", 65536)}, errSize},
		"a question one byte too long": {&Open{AuthInfo: strings.Repeat("x", MaxQuestion-17+1)}, errSize},
		"a question of the full size":  {&Open{AuthInfo: strings.Repeat("x", MaxQuestion-17)}, nil},
	}
	for sentence, c := range questions {
		t.Run(sentence, func(t *testing.T) {
			if _, err := EncodeQuestion(c.q); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestAnAllowanceTooLongToSendBecomesADenial(t *testing.T) {
	var b bytes.Buffer
	err := WriteAnswer(&b, Answer{Allow: true, Seconds: 9, Text: strings.Repeat("x", MaxAnswer)})
	if !errors.Is(err, errSize) {
		t.Errorf("got %v, want %v", err, errSize)
	}
	if a, err := ReadAnswer(&b); err != nil || a != (Answer{}) {
		t.Errorf("sent %+v (%v), want a bare denial", a, err)
	}
}

func TestReadQuestionTakesOneQuestionAndNoMore(t *testing.T) {
	var b bytes.Buffer
	first, second := &Account{User: "alice"}, &Account{User: "mallory"}
	for _, q := range []Question{first, second} {
		if err := WriteQuestion(&b, q); err != nil {
			t.Fatal(err)
		}
	}
	q, err := ReadQuestion(iotest.OneByteReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Question(first), q); diff != "" {
		t.Errorf("read differs (-want +got):\n%s", diff)
	}
	if b.Len() == 0 {
		t.Error("the second question was read too")
	}
}

func TestReadQuestionRefusesBeforeItReads(t *testing.T) {
	r := io.MultiReader(strings.NewReader("\xff\xff\xff\xff"), iotest.ErrReader(errors.New("was read on")))
	if _, err := ReadQuestion(r); !errors.Is(err, errSize) {
		t.Errorf("got %v, want %v", err, errSize)
	}
	if _, err := ReadQuestion(strings.NewReader("\x10\x00\x00\x00PIM1A")); err == nil {
		t.Error("a question cut short was read")
	}
}

func FuzzQuestion(f *testing.F) {
	for _, v := range vectors(f, "questions.tsv") {
		f.Add(v.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := DecodeQuestion(b)
		if err != nil {
			return
		}
		if again, err := EncodeQuestion(q); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x was read as %#v and written as %x (%v)", b, q, again, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, v := range vectors(f, "answers.tsv") {
		f.Add(v.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := DecodeAnswer(b)
		if err != nil {
			if a != (Answer{}) {
				t.Errorf("%x: an error beside %+v", b, a)
			}
			return
		}
		want := bytes.Clone(b)
		if want[8] != allowed {
			want[8] = 0
		}
		if again, err := EncodeAnswer(a); err != nil || !bytes.Equal(again, want) {
			t.Errorf("%x was read as %+v and written as %x (%v)", b, a, again, err)
		}
	})
}
