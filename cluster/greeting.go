package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
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
	mark   statement.Disk
	id     raft.ServerID // see Seat

	restore *statement.Proof // of a broker that was restored: what its origin is the hash of
	added   *statement.Proof // of a broker that joined: an operator's word that it may, once it knows of one
}

// What stands behind the id when a statement follows the greeting, after its length.
const (
	restored = "restored"
	added    = "added"
)

// say writes a greeting: origin, mark, length of the rest, the rest.
func (g greeting) say(w io.Writer) error {
	switch {
	case g.restore != nil:
		return g.sayWith(w, restored, g.restore)
	case g.added != nil:
		return g.sayWith(w, added, g.added)
	default:
		return sayFields(w, g.origin, string(g.mark), string(g.id))
	}
}

// sayWith writes a greeting and a statement after it.
func (g greeting) sayWith(w io.Writer, what string, proof *statement.Proof) error {
	data, err := json.Marshal(proof, json.Deterministic(true))
	if err == nil {
		err = sayFields(w, g.origin, string(g.mark), string(g.id)+" "+what)
	}
	if err == nil {
		_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	}
	return err
}

// hearWith reads the statement that follows a greeting.
func (g *greeting) hearWith(r io.Reader, what string) error {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(length[:]) > 2*statement.MaxPayload {
		return errors.New("its statement is too long")
	}
	data := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	proof, err := statement.ParseProof(data)
	switch {
	case err != nil:
		return err
	case what == added:
		g.added = &proof
		return nil
	case what == restored && proof.Hash() == g.origin:
		g.restore = &proof
		return nil
	default:
		return errors.New("its statement is another one")
	}
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
	origin := statement.Hash(fixed[:len(statement.Hash{})])
	if origin.IsZero() {
		return greeting{}, refusedError{string(rest)}
	}
	mark, err := statement.ParseDisk(string(fixed[len(origin) : len(fixed)-1]))
	id, what, more := strings.Cut(string(rest), " ")
	g := greeting{origin: origin, mark: mark, id: raft.ServerID(id)}
	if more && err == nil {
		err = g.hearWith(r, what)
	}
	if err != nil {
		return greeting{}, fmt.Errorf("%w: %w", errGarbled, err)
	}
	return g, nil
}
