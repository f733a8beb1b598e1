package backup

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"filippo.io/age"
)

// Kind says what a file is; its first line names it.
type Kind string

// The closed set of kinds.
const (
	Record  Kind = "backup"  // head: the signed checkpoint over the entries
	Restore Kind = "restore" // head: the proof of the restore statement that names the entries' tree
)

// Limits of what is read, whoever wrote it.
const (
	maxHead  = 1 << 20 // bytes
	maxEntry = 4 << 20 // bytes; the largest policy in an event is smaller
)

// Why a file is not read. Test with errors.Is.
var (
	// ErrKey says that the file is encrypted to somebody else.
	ErrKey = errors.New("none of these keys opens it")
	// ErrDamaged says that it is not, to the last byte, what was written.
	ErrDamaged = errors.New("it is damaged")
	// ErrForeign says that it is something else, or of another version.
	ErrForeign = errors.New("it is no file of this kind")
)

func (k Kind) line() string { return "pim-ssh/" + string(k) + "/1\n" }

// Writer encrypts a file as it grows. It is whole once Close has returned.
type Writer struct {
	sealed io.WriteCloser
	out    *bufio.Writer
}

// NewWriter begins a file that the holders of these keys can read, and nobody else.
func NewWriter(out io.Writer, kind Kind, head []byte, to ...age.Recipient) (*Writer, error) {
	if len(to) == 0 || len(head) > maxHead {
		return nil, fmt.Errorf("%s: %d keys to encrypt to, a head of %d bytes", kind, len(to), len(head))
	}
	sealed, err := age.Encrypt(out, to...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	w := &Writer{sealed: sealed, out: bufio.NewWriterSize(sealed, 64<<10)}
	if _, err := w.out.WriteString(kind.line()); err != nil {
		return nil, err
	}
	return w, w.frame(head)
}

// Add appends one entry.
func (w *Writer) Add(entry []byte) error {
	if len(entry) > maxEntry {
		return fmt.Errorf("an entry of %d bytes: at most %d", len(entry), maxEntry)
	}
	return w.frame(entry)
}

func (w *Writer) frame(data []byte) error {
	_, err := w.out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data))))
	if err == nil {
		_, err = w.out.Write(data)
	}
	return err
}

// Close ends the file; what it was written to is the caller's to sync and close.
func (w *Writer) Close() error { return errors.Join(w.out.Flush(), w.sealed.Close()) }

// Open reads a file's head and returns it with the entries, which can be read once, in order. An error ends them: only when
// none came is the file whole, because age proves where it ends. Neither head nor entries are believed here.
func Open(in io.Reader, kind Kind, keys ...age.Identity) ([]byte, iter.Seq2[[]byte, error], error) {
	opened, err := age.Decrypt(in, keys...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, nil, ErrKey
	case err != nil:
		return nil, nil, fmt.Errorf("%w, or no %s of pim-ssh at all: %w", ErrDamaged, kind, err)
	}
	r := reader{bufio.NewReaderSize(opened, 64<<10)}
	line, err := r.in.ReadString('\n')
	switch {
	case err != nil:
		return nil, nil, damaged(err)
	case line != kind.line():
		return nil, nil, fmt.Errorf("%w: it begins with %.40q, want %q", ErrForeign, strings.TrimSuffix(line, "\n"), strings.TrimSuffix(kind.line(), "\n"))
	}
	head, err := r.frame(maxHead)
	if err != nil {
		return nil, nil, damaged(err)
	}
	return head, r.entries, nil
}

// reader reads frames.
type reader struct {
	in *bufio.Reader
}

func (r reader) entries(yield func([]byte, error) bool) {
	for {
		_, err := r.in.Peek(1)
		if errors.Is(err, io.EOF) {
			return
		}
		var entry []byte
		if err == nil {
			entry, err = r.frame(maxEntry)
		}
		if err != nil {
			yield(nil, damaged(err))
			return
		}
		if !yield(entry, nil) {
			return
		}
	}
}

func (r reader) frame(most uint32) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r.in, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > most {
		return nil, fmt.Errorf("a part of %d bytes: at most %d", n, most)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(r.in, data)
	return data, err
}

func damaged(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut short: %w", ErrDamaged, err)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// ParseKeys reads what to encrypt to: age1… each, of either kind that age-keygen makes.
func ParseKeys(texts []string) ([]age.Recipient, error) {
	var keys []age.Recipient
	for _, text := range texts {
		found, err := age.ParseRecipients(strings.NewReader(text + "\n"))
		if strings.HasPrefix(strings.ToUpper(text), "AGE-SECRET-KEY") {
			return nil, errors.New("that is the secret half: encrypt to the public one, which age-keygen -y prints")
		}
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("%.80q: want the public half of a key that age-keygen made, age1…", text)
		}
		keys = append(keys, found[0])
	}
	return keys, nil
}
