package backup

import (
	"bytes"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

const canary = "INC-42 replica lag on the customers' ledger"

func newKey(t *testing.T) *age.X25519Identity {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// entries are some of every size, the empty one included, more than one of age's chunks together.
func entries() [][]byte {
	all := [][]byte{[]byte(canary), {}}
	for i := range 200 {
		all = append(all, bytes.Repeat([]byte(fmt.Sprintf("%s %d;", canary, i)), i))
	}
	return all
}

func sealed(t *testing.T, kind Kind, to ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, kind, []byte("head "+canary), to...)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries() {
		if err := w.Add(entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func read(data []byte, kind Kind, keys ...age.Identity) (string, [][]byte, error) {
	head, all, err := Open(bytes.NewReader(data), kind, keys...)
	if err != nil {
		return "", nil, err
	}
	var found [][]byte
	for entry, err := range all {
		if err != nil {
			return string(head), found, err
		}
		found = append(found, entry)
	}
	return string(head), found, nil
}

func TestAFileGivesBackWhatWasPutIn(t *testing.T) {
	one, other := newKey(t), newKey(t)
	data := sealed(t, Record, one.Recipient(), other.Recipient())
	for _, key := range []age.Identity{one, other} {
		head, found, err := read(data, Record, key)
		if err != nil || head != "head "+canary || !slices.EqualFunc(found, entries(), bytes.Equal) {
			t.Errorf("%q, %d entries, %v", head, len(found), err)
		}
	}
}

// TestNothingCanBeReadWithoutTheKey greps for the canary, as a thief would, and tries another key.
func TestNothingCanBeReadWithoutTheKey(t *testing.T) {
	data := sealed(t, Record, newKey(t).Recipient())
	for _, word := range []string{canary, "INC-42", "ledger", "head", "pim-ssh"} {
		if bytes.Contains(data, []byte(word)) {
			t.Errorf("%q can be read", word)
		}
	}
	if _, _, err := read(data, Record, newKey(t)); !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := NewWriter(&bytes.Buffer{}, Record, nil); err == nil {
		t.Error("a file was begun that everybody could read")
	}
}

// TestEveryCutIsNoticed cuts the file at 300 seeded places, and between age's chunks.
func TestEveryCutIsNoticed(t *testing.T) {
	key := newKey(t)
	data := sealed(t, Record, key.Recipient())
	random := mathrand.New(mathrand.NewPCG(4, 1))
	cuts := []int{0, 1, len(data) - 1, len(data) - 16, len(data) - 17}
	for range 300 {
		cuts = append(cuts, random.IntN(len(data)))
	}
	for _, at := range cuts {
		if _, found, err := read(data[:at], Record, key); err == nil || !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d of %d: %d entries, %v", at, len(data), len(found), err)
		}
	}
	if _, found, err := read(append(slices.Clone(data), 'x'), Record, key); err == nil {
		t.Errorf("a byte behind the end: %d entries", len(found))
	}
}

// TestEveryFlippedByteIsNoticed flips one of 500 seeded bytes at a time.
func TestEveryFlippedByteIsNoticed(t *testing.T) {
	key := newKey(t)
	data := sealed(t, Record, key.Recipient())
	random := mathrand.New(mathrand.NewPCG(4, 2))
	for i := range 500 {
		at, by := random.IntN(len(data)), byte(1+random.IntN(255))
		if i < 200 {
			at = i // age's own header
		}
		data[at] ^= by
		if _, found, err := read(data, Record, key); err == nil {
			t.Errorf("byte %d: %d entries and no error", at, len(found))
		}
		data[at] ^= by
	}
}

func TestAFileOfAnotherKindIsRefused(t *testing.T) {
	key := newKey(t)
	if _, _, err := read(sealed(t, Restore, key.Recipient()), Record, key); !errors.Is(err, ErrForeign) {
		t.Errorf("a restore file as a backup: %v", err)
	}
	var plain bytes.Buffer
	w, err := age.Encrypt(&plain, key.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("somebody's photographs\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(plain.Bytes(), Record, key); !errors.Is(err, ErrForeign) {
		t.Errorf("another file of age's: %v", err)
	}
	if _, _, err := read([]byte("PK\x03\x04 nothing of age's"), Record, key); !errors.Is(err, ErrDamaged) {
		t.Errorf("something else: %v", err)
	}
}

// TestTheLayoutIsWhatTheDocumentationSays lays the inside out by hand: a backup must be readable without this program.
func TestTheLayoutIsWhatTheDocumentationSays(t *testing.T) {
	key := newKey(t)
	opened, err := age.Decrypt(bytes.NewReader(sealed(t, Record, key.Recipient())), key)
	if err != nil {
		t.Fatal(err)
	}
	var inside bytes.Buffer
	if _, err := inside.ReadFrom(opened); err != nil {
		t.Fatal(err)
	}
	want := []byte("pim-ssh/backup/1\n")
	for _, part := range append([][]byte{[]byte("head " + canary)}, entries()...) {
		want = append(want, byte(len(part)>>24), byte(len(part)>>16), byte(len(part)>>8), byte(len(part)))
		want = append(want, part...)
	}
	if !bytes.Equal(inside.Bytes(), want) {
		t.Error("the inside is laid out in another way")
	}
}

func TestKeysToEncryptToAreHeldToTheirForm(t *testing.T) {
	good := newKey(t).Recipient().String()
	if keys, err := ParseKeys([]string{good, good}); err != nil || len(keys) != 2 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	for name, text := range map[string]string{
		"nothing": "", "a secret half": newKey(t).String(), "a comment": "# " + good, "two in one": good + "\n" + good,
		"a typing error": strings.Replace(good, "1", "2", 1), "an ssh key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ",
	} {
		if keys, err := ParseKeys([]string{text}); err == nil {
			t.Errorf("%s: taken as %v", name, keys)
		}
	}
}
