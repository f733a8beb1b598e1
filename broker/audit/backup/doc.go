// Package backup is the record in one encrypted file: what pim-ssh cluster backup and pim-brokerd export write, and what a
// restore is made from.
//
// It decides how such a file is laid out, that nobody without a key reads a byte of it, and that one which was cut short,
// altered or is of another kind is refused with a sentence. It never says whether the entries are a record that anybody
// signed: package refold does, and readers ask it. It holds no key and opens no file itself.
//
// The encryption is age's (age-encryption.org/v1), which also proves the end of the file. Inside stand a line that names the
// kind, a head (of a backup the signed checkpoint, of a restore the operator's statement) and the entries, each framed by its
// length in four bytes, big-endian.
//
// It is a leaf beside package audit. Read file.go, which is all of it.
package backup
