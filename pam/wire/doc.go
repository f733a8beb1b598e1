// Package wire is the language of the agent's two sockets: what pam_pim.so and
// pim-principals ask, and what pim-hostd answers.
//
// It decides which bytes are a well-formed question or answer and refuses all
// others: wrong magic, wrong field count, a NUL, a length that lies, a byte too
// many. The zero Answer denies, and so does everything that cannot be read.
//
// It never opens a socket, reads a clock, believes a field (every string in a
// question is what the caller says about itself) or decides who may do what:
// that is pam/agent. The C half of the same language is pam/module/client.c;
// both run the vectors in testdata.
//
// One connection carries one question and one answer, and then the agent says
// no more on it: the C side takes an answer only when the stream ends after it.
// Where Account's answer names a session, the asker may keep its own end open:
// one Begun, and then its closing, tell what became of that session.
//
// Read question.go first, then answer.go; frame.go is what they share.
package wire
