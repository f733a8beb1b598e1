// Package term is the only code of pim-ssh that writes to a terminal.
//
// It decides how anything is shown: results go to stdout, talk to stderr, questions to /dev/tty; every argument is
// escaped on its way out, so that text signed by one person or sent by a broker cannot move the cursor, reorder,
// hide or imitate what pim-ssh itself says. It never decides what is said, and never reads anything but answers to
// its own questions.
//
// It sits below cmd/pim-ssh, which hands it words and values. Read escape.go first, then terminal.go.
package term
