package policyfile

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"

	"pim-ssh/broker/statement"
)

// Caps that are checked before the parser, which recurses, sees anything.
const (
	maxFile   = statement.MaxPolicy
	maxNested = 16     // brackets and braces inside each other
	maxIndent = 100    // columns of a list entry in block style
	maxOdd    = 100    // places where a comma or a line is missing
	maxTokens = 80_000 // words and punctuation: the parser's time grows with their square; a person takes about ten
)

// plain refuses bytes that look like something else than they are.
func (r *reader) plain(text []byte) bool {
	if len(text) > maxFile {
		r.say(place{1, 1}, "%d bytes: at most %d", len(text), maxFile)
		return false
	}
	for number, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if !utf8.Valid(line) {
			r.say(place{number + 1, 1}, "not UTF-8")
			continue
		}
		if at := bytes.IndexFunc(line, invisible); at >= 0 {
			odd, _ := utf8.DecodeRune(line[at:])
			r.say(place{number + 1, utf8.RuneCount(line[:at]) + 1}, "%U is a tab, a control or an invisible character: use spaces and visible text", odd)
		}
	}
	return len(r.found) == 0
}

// invisible covers controls, and the format characters with which text reads differently from what it says.
func invisible(c rune) bool {
	return unicode.In(c, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// refused are the tokens that have no place in a policy, with what to write instead.
var refused = map[token.Type]string{
	token.AnchorType:     "anchors (&) are refused: write the value out",
	token.AliasType:      "aliases (*) are refused: write the value out",
	token.TagType:        "tags (!) are refused: every key has one kind of value",
	token.MergeKeyType:   "merging (<<) is refused: write the keys out",
	token.DirectiveType:  "directives (%) are refused",
	token.MappingKeyType: "complex keys (?) are refused",
	token.LiteralType:    "block text (|) is refused: write it on one line",
	token.FoldedType:     "folded text (>) is refused: write it on one line",
}

// scan refuses YAML beyond mappings, lists and one-line scalars before it is parsed; nothing is ever expanded.
func (r *reader) scan(tokens token.Tokens) bool {
	if len(tokens) > maxTokens {
		r.say(place{1, 1}, "%d words and signs: at most %d", len(tokens), maxTokens)
		return false
	}
	nested, headers := 0, 0
	var crowded pairing
	for i, t := range tokens {
		p := place{t.Position.Line, t.Position.Column}
		if crowded.next(t, nested) > maxOdd {
			r.say(p, "not YAML: commas or lines are missing")
			return false
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			nested++
		case token.MappingEndType, token.SequenceEndType:
			nested--
		case token.DocumentHeaderType:
			headers++
			if headers > 1 || !onlyComments(tokens[:i]) {
				r.say(p, "a second document is refused: one file, one policy")
			}
		case token.DocumentEndType:
			r.say(p, "the end of a document (...) is refused: one file, one policy")
		case token.InvalidType:
			r.say(p, "not YAML: %s", t.Error)
		case token.SequenceEntryType:
			if t.Position.Column > maxIndent {
				r.say(p, "nested too deep")
				return false
			}
		case token.StringType, token.SingleQuoteType, token.DoubleQuoteType:
			if strings.Contains(strings.TrimSpace(t.Origin), "\n") && !afterBlock(tokens, i) {
				r.say(p, "text over several lines is refused: write it on one line")
			}
		}
		if why, is := refused[t.Type]; is {
			r.say(p, "%s", why)
		}
		if nested > maxNested {
			r.say(p, "nested too deep")
			return false
		}
	}
	return len(r.found) == 0
}

// pairing counts what is no YAML anyway and would make the parser's time grow with its square: keys without anything between them,
// and brackets that open where others close. A few are left to the parser, which says better what is wrong.
type pairing struct {
	last *token.Token
	key  *token.Token // the colon that waits for a comma, a bracket, a dash or the next line
	odd  int
}

func (w *pairing) next(t *token.Token, nested int) (odd int) {
	opens := t.Type == token.MappingStartType || t.Type == token.SequenceStartType
	closed := w.last != nil && (w.last.Type == token.MappingEndType || w.last.Type == token.SequenceEndType)
	w.last = t
	switch {
	case opens && closed:
		w.odd++
	case opens, t.Type == token.CollectEntryType, t.Type == token.SequenceEntryType:
		w.key = nil
	case t.Type == token.MappingValueType:
		if w.key != nil && (nested > 0 || w.key.Position.Line == t.Position.Line) {
			w.odd++
		}
		w.key = t
	}
	return w.odd
}

func onlyComments(tokens token.Tokens) bool {
	for _, t := range tokens {
		if t.Type != token.CommentType {
			return false
		}
	}
	return true
}

// afterBlock reports whether the text belongs to a | or >, which is refused already.
func afterBlock(tokens token.Tokens, i int) bool {
	return i > 0 && (tokens[i-1].Type == token.LiteralType || tokens[i-1].Type == token.FoldedType)
}
