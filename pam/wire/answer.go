package wire

import (
	"fmt"
	"io"
)

// MaxAnswer is the most an answer's length prefix may say, in bytes.
const MaxAnswer = 1024

// Answer is the agent's verdict. The zero value denies.
type Answer struct {
	Allow     bool
	Seconds   uint32 // left of the window; 0 on a denial
	Principal string // for Principals: "pim-g-<stem>"; else ""
	Session   string // for Account that put the asking process there: the cgroup "pim-g-<stem>.service/s-<N>"; else ""
	RunAs     string // beside Session: the accounts that its grants run commands as, parted by single spaces; else ""
	Text      string // one line for the person, "" for none; control bytes are not shown
}

const allowed = 1 // every other verdict byte denies

// EncodeAnswer returns a as it stands on the wire, length prefix included. It
// refuses a NUL in a string and an answer over MaxAnswer.
func EncodeAnswer(a Answer) ([]byte, error) {
	verdict := byte(0)
	if a.Allow {
		verdict = allowed
	}
	b := append([]byte(magic), verdict)
	b = order.AppendUint32(b, a.Seconds)
	for _, s := range []string{a.Principal, a.Session, a.RunAs, a.Text} {
		var err error
		if b, err = appendField(b, s); err != nil {
			return nil, fmt.Errorf("answer: %w", err)
		}
	}
	return seal(b, MaxAnswer)
}

// DecodeAnswer reads one whole answer, length prefix included; any byte missing
// or left over is an error, and the Answer beside an error denies.
func DecodeAnswer(b []byte) (Answer, error) {
	r, err := unseal(b, MaxAnswer)
	if err != nil {
		return Answer{}, fmt.Errorf("answer: %w", err)
	}
	a := Answer{Allow: r.byte() == allowed, Seconds: r.uint32(), Principal: r.field(), Session: r.field(), RunAs: r.field(), Text: r.field()}
	if err := r.done(); err != nil {
		return Answer{}, fmt.Errorf("answer: %w", err)
	}
	return a, nil
}

// ReadAnswer reads the one answer a connection carries, and then the stream's end: one
// that goes on after the answer is refused, as the C side refuses it.
func ReadAnswer(r io.Reader) (Answer, error) {
	b, err := io.ReadAll(io.LimitReader(r, prefix+MaxAnswer+1))
	if err != nil {
		return Answer{}, fmt.Errorf("answer: %w", err)
	}
	return DecodeAnswer(b)
}

// WriteAnswer writes a in one Write. An answer too long to send is sent as a bare
// denial and reported. The caller closes the connection for writing at
// once: until then the C side waits.
func WriteAnswer(w io.Writer, a Answer) error {
	b, bad := EncodeAnswer(a)
	if bad != nil {
		b, _ = EncodeAnswer(Answer{})
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return bad
}
