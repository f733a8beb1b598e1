package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"pim-ssh/broker/statement"
)

// MaxCheckpoint is the largest signed checkpoint in bytes that Open reads.
const MaxCheckpoint = 4 << 10

// maxSize is how many entries a record may claim: far more than there will be, and safe in every index's arithmetic.
const maxSize = 1 << 40

// Checkpoint is what a broker signs: the tree over the first Size entries of one deployment's record.
type Checkpoint struct {
	Deployment statement.Hash
	statement.LogHead
	State statement.Hash // digest of the state that these entries fold to
}

// Signed is a checkpoint that a broker signed.
type Signed struct {
	Checkpoint
	Broker statement.BrokerName
	Text   []byte // the signed note, whole
}

// origin is the checkpoint's first line and the name of every key that may sign it.
func origin(deployment statement.Hash) string { return "pim-ssh/" + deployment.String() }

const stateLine = "state "

func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n%s%s\n", origin(c.Deployment), c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), stateLine, c.State)
}

// Sign returns the checkpoint as a signed note. The key must be ssh-ed25519.
func Sign(c Checkpoint, key ssh.Signer) ([]byte, error) {
	public, err := statement.KeyOf(key.PublicKey())
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	known, err := verifier(c.Deployment, public)
	if err != nil {
		return nil, err
	}
	text, err := note.Sign(&note.Note{Text: c.text()}, noteSigner{known, key})
	if err != nil {
		return nil, fmt.Errorf("checkpoint of %d entries: %w", c.Size, err)
	}
	return text, nil
}

// noteSigner signs notes with an ssh key, which may live in an ssh-agent.
type noteSigner struct {
	note.Verifier
	key ssh.Signer
}

// Sign returns the 64 bytes of an ed25519 signature.
func (s noteSigner) Sign(text []byte) ([]byte, error) {
	signature, err := s.key.Sign(nil, text)
	if err != nil {
		return nil, err
	}
	return signature.Blob, nil
}

// verifier is the note's view of a broker's log key.
func verifier(deployment statement.Hash, key statement.Key) (note.Verifier, error) {
	public, isCrypto := key.Public().(ssh.CryptoPublicKey)
	if !isCrypto {
		return nil, fmt.Errorf("log key %.40q: no key", string(key))
	}
	raw, isEd25519 := public.CryptoPublicKey().(ed25519.PublicKey)
	if !isEd25519 || key.Type() != ssh.KeyAlgoED25519 {
		return nil, fmt.Errorf("log key %s: want ssh-ed25519", key.Type())
	}
	text, err := note.NewEd25519VerifierKey(origin(deployment), raw)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(text)
}

// Open reads a signed checkpoint of this deployment. It must carry exactly one signature, by the log key of one of these
// brokers, and be spelled as Sign spells it, to the last byte.
func Open(text []byte, deployment statement.Hash, keys map[statement.BrokerName]statement.Key) (Signed, error) {
	if len(text) > MaxCheckpoint {
		return Signed{}, fmt.Errorf("checkpoint: %d bytes, at most %d", len(text), MaxCheckpoint)
	}
	var why error = errors.New("no broker's log key is known")
	for name, key := range keys {
		known, err := verifier(deployment, key)
		if err != nil {
			why = err
			continue
		}
		opened, err := note.Open(text, note.VerifierList(known))
		if err != nil {
			why = fmt.Errorf("not signed by the log key of a broker: %w", err)
			continue
		}
		checkpoint, err := parse(opened.Text, deployment)
		if err != nil {
			return Signed{}, fmt.Errorf("checkpoint: %w", err)
		}
		if spelled := opened.Text + "\n— " + opened.Sigs[0].Name + " " + opened.Sigs[0].Base64 + "\n"; spelled != string(text) || !canonical(opened.Sigs[0].Base64) {
			return Signed{}, errors.New("checkpoint: not in canonical form")
		}
		return Signed{Checkpoint: checkpoint, Broker: name, Text: bytes.Clone(text)}, nil
	}
	return Signed{}, fmt.Errorf("checkpoint: %w", why)
}

// canonical reports whether base64 is in its one spelling.
func canonical(text string) bool {
	_, err := base64.StdEncoding.Strict().DecodeString(text)
	return err == nil
}

func parse(text string, deployment statement.Hash) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || lines[0] != origin(deployment) {
		return Checkpoint{}, errors.New("want origin, size, root and state of this deployment, a line each")
	}
	c := Checkpoint{Deployment: deployment}
	var err error
	if c.Size, err = strconv.ParseUint(lines[1], 10, 64); err != nil || c.Size > maxSize {
		return Checkpoint{}, fmt.Errorf("size %.40q: want a number of entries", lines[1])
	}
	root, errRoot := base64.StdEncoding.DecodeString(lines[2])
	state, errState := hex.DecodeString(strings.TrimPrefix(lines[3], stateLine))
	if errRoot != nil || errState != nil || len(root) != len(c.Root) || len(state) != len(c.State) {
		return Checkpoint{}, errors.New("root and state: want a sha256 each")
	}
	copy(c.Root[:], root)
	copy(c.State[:], state)
	if c.text() != text {
		return Checkpoint{}, errors.New("not in canonical form")
	}
	return c, nil
}
