package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

const (
	magic  = "PIM1"
	prefix = 4 // bytes of the length before every frame; it does not count itself
)

var order = binary.LittleEndian

var (
	errShort = errors.New("ends too early")
	errLong  = errors.New("has bytes left over")
	errNUL   = errors.New("has a NUL in a field")
	errSize  = errors.New("is over the size limit")
	errMagic = errors.New("does not begin with " + magic)
)

// appendField appends u16 length and bytes.
func appendField(b []byte, s string) ([]byte, error) {
	if len(s) > math.MaxUint16 {
		return nil, errSize
	}
	if strings.IndexByte(s, 0) >= 0 {
		return nil, errNUL
	}
	return append(order.AppendUint16(b, uint16(len(s))), s...), nil
}

// seal puts the length before a finished body.
func seal(body []byte, limit int) ([]byte, error) {
	if len(body) > limit {
		return nil, fmt.Errorf("%d bytes: %w", len(body), errSize)
	}
	return append(order.AppendUint32(nil, uint32(len(body))), body...), nil
}

// unseal checks length and magic of a whole frame and returns a reader of the rest.
func unseal(b []byte, limit int) (*reader, error) {
	if len(b) < prefix {
		return nil, errShort
	}
	n := order.Uint32(b)
	rest := b[prefix:]
	switch {
	case uint64(n) > uint64(limit):
		return nil, errSize
	case uint64(n) > uint64(len(rest)):
		return nil, errShort
	case uint64(n) < uint64(len(rest)):
		return nil, errLong
	case len(rest) < len(magic) || string(rest[:len(magic)]) != magic:
		return nil, errMagic
	}
	return &reader{b: rest[len(magic):]}, nil
}

// readFrame reads one frame, never allocating more than limit.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [prefix]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := order.Uint32(head[:])
	if uint64(n) > uint64(limit) {
		return nil, errSize
	}
	b := make([]byte, prefix+int(n))
	copy(b, head[:])
	_, err := io.ReadFull(r, b[prefix:])
	return b, err
}

// reader takes a frame apart; after the first error it yields zeros, and done
// reports that error.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.err = errShort
	}
	if r.err != nil {
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint32() uint32 { return order.Uint32(r.take(4)) }

func (r *reader) field() string {
	s := string(r.take(int(order.Uint16(r.take(2)))))
	if r.err == nil && strings.IndexByte(s, 0) >= 0 {
		r.err = errNUL
	}
	return s
}

func (r *reader) done() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errLong
	}
	return r.err
}
