// Package audit is the record that nobody can rewrite unseen: leaves in a Merkle tree, tiles, signed checkpoints.
//
// It decides which files a growing record consists of (Grow), whether a checkpoint is a broker's word (Open), whether a
// newer tree still begins with an older one (Extends), and what is wrong with a record (Read). It never says what an event
// means: package refold does. It reads no disk and no network itself; a Source does, which the caller gives.
//
// The layout is C2SP tlog-tiles of height 8 with one difference, in bundles of entries: our entries may be longer than
// 64 KiB, so each is framed by its length in four bytes, big-endian, where C2SP has two. Checkpoints are signed notes
// whose origin, and whose key's name, is pim-ssh/DEPLOYMENT; one line follows the root, "state HEX": the digest of the
// state that the entries fold to. The tree is the same on every broker, and each signs it with its own log key.
//
// It is a leaf beside package statement, whose hashes and keys it uses. Read checkpoint.go first, then grow.go and read.go.
package audit
