package cluster

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/raft"

	"pim-ssh/broker/statement"
)

// greetTimeout bounds the exchange of greetings.
const greetTimeout = 5 * time.Second

// markLength is how many hex digits a disk's id has.
const markLength = 32

var errGarbled = errors.New("what it says is no greeting")

// greeting is what each side of a raft connection says first: which founding its log goes back to, which disk it is, and
// as which member. It says no name: TLS has proved one, and what is said must agree.
//
// The accepting side answers with its own greeting, or with a refusal: one without an origin, whose last field is a
// sentence for people.
type greeting struct {
	origin statement.Hash // of a broker that joined: the deployment
	mark   string         // markLength hex digits
	id     raft.ServerID  // see serverID
	events uint64         // that a broker that joined has folded: more than here, and it may know more than this broker
}

// say writes a greeting: origin, mark, length of the rest, the rest.
func (g greeting) say(w io.Writer) error {
	rest := string(g.id)
	if _, _, joined := split(g.id); joined {
		rest += " " + strconv.FormatUint(g.events, 10)
	}
	return sayFields(w, g.origin, g.mark, rest)
}

// refuse writes a refusal in place of a greeting.
func refuse(w io.Writer, why error) error {
	sentence := why.Error()
	return sayFields(w, statement.Hash{}, strings.Repeat("0", markLength), sentence[:min(len(sentence), 255)])
}

func sayFields(w io.Writer, origin statement.Hash, mark, rest string) error {
	said := append(origin[:], mark...)
	said = append(said, byte(len(rest)))
	_, err := w.Write(append(said, rest...))
	return err
}

// refusedError is a refusal that was heard.
type refusedError struct{ sentence string }

// Error says what the other broker said, in what can be printed of it: its author may be owned.
func (e refusedError) Error() string {
	return "refused: " + strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, e.sentence)
}

// hear reads the other side's greeting; its refusal is a refusedError.
func hear(r io.Reader) (greeting, error) {
	var fixed [len(statement.Hash{}) + markLength + 1]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return greeting{}, err
	}
	rest := make([]byte, fixed[len(fixed)-1])
	if _, err := io.ReadFull(r, rest); err != nil {
		return greeting{}, err
	}
	g := greeting{origin: statement.Hash(fixed[:len(statement.Hash{})]), mark: string(fixed[len(statement.Hash{}) : len(fixed)-1])}
	if g.origin.IsZero() {
		return greeting{}, refusedError{string(rest)}
	}
	id, events, joined := strings.Cut(string(rest), " ")
	g.id = raft.ServerID(id)
	if joined {
		var err error
		if g.events, err = strconv.ParseUint(events, 10, 64); err != nil {
			return greeting{}, errGarbled
		}
	}
	if len(g.mark) != markLength || strings.Trim(g.mark, "0123456789abcdef") != "" {
		return greeting{}, errGarbled
	}
	return g, nil
}
