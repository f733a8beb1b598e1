package api

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"pim-ssh/broker"
	"pim-ssh/broker/statement"
)

// ProblemOf is the wire form of an error. What is not a *broker.Error tells the caller nothing: its cause belongs in
// the broker's own log.
func ProblemOf(err error) (status int, problem Problem) {
	var told *broker.Error
	if !errors.As(err, &told) {
		told = &broker.Error{Kind: broker.Unavailable, Msg: "the broker could not answer", Hint: "try again in a moment"}
	}
	return told.Kind.HTTPStatus(), Problem{Kind: string(told.Kind), Message: told.Msg, Hint: told.Hint}
}

// problem reads the body of an answer that is not 2xx.
func problem(status int, data []byte) error {
	var said Problem
	if err := statement.DecodeStrict(data, &said); err != nil {
		return &broker.Error{Kind: broker.Unavailable, Msg: fmt.Sprintf("the broker answered %d", status), Err: err}
	}
	kind := broker.Kind(said.Kind)
	if kind.HTTPStatus() != status {
		return &broker.Error{Kind: broker.Unavailable, Msg: fmt.Sprintf("the broker answered %d with kind %.40q", status, said.Kind)}
	}
	return &broker.Error{Kind: kind, Msg: words(said.Message), Hint: words(said.Hint)}
}

// maxWords is how many bytes of a broker's message or hint a person is shown: an honest one names a role, a few hosts.
const maxWords = 2000

// words cuts a text between two characters.
func words(text string) string {
	if len(text) <= maxWords {
		return text
	}
	cut := maxWords
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

func unavailable(err error) bool {
	var told *broker.Error
	return errors.As(err, &told) && told.Kind == broker.Unavailable
}
