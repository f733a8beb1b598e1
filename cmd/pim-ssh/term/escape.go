package term

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// marksInARow is how many combining marks may follow one letter; more of them pile up over neighbouring lines.
const marksInARow = 2

// Escape returns text on one line in which every rune is visible and keeps its place. Control bytes, terminal
// escapes, bidirectional overrides, zero-width and invisible runes, odd spaces, private and unassigned code points,
// piled-up marks and invalid UTF-8 become \n, \x1b, \u202e …; a backslash becomes two, so that no text can pretend to
// have been escaped. Escape never fails and never returns anything it would change again into something unsafe.
func Escape(text string) string {
	var b strings.Builder
	marks := marksInARow // a mark with no letter before it would sit on what precedes the text
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size <= 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
			marks = marksInARow
		case unicode.Is(unicode.M, r) && visible(r):
			if marks >= marksInARow {
				writeEscaped(&b, r)
				break
			}
			marks++
			b.WriteRune(r)
		case visible(r) && r != '\\':
			b.WriteRune(r)
			marks = 0
		default:
			writeEscaped(&b, r)
			marks = marksInARow
		}
		text = text[size:]
	}
	return b.String()
}

// visible reports whether r shows as itself and moves nothing else.
func visible(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r >= 0x20 && r < 0x7f
	case r == '\u2800': // braille blank
		return false
	case unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector):
		return false
	}
	return unicode.IsPrint(r) // letters, marks, numbers, punctuation, symbols: no Cc, Cf, Co, Cs, Zl, Zp, odd Zs
}

func writeEscaped(b *strings.Builder, r rune) {
	switch {
	case r == '\\':
		b.WriteString(`\\`)
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case r < utf8.RuneSelf:
		fmt.Fprintf(b, `\x%02x`, r)
	case r < 0x10000:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		fmt.Fprintf(b, `\U%08x`, r)
	}
}

// Brief is Escape cut to at most columns terminal columns, ending in … where something was left out.
func Brief(text string, columns int) string {
	safe := Escape(text)
	if width(safe) <= columns {
		return safe
	}
	cut := fit(safe, columns-1)
	return safe[:cut] + "…"
}

// Block is Escape broken into lines of at most columns terminal columns. Nothing is left out: whoever decides sees
// all of the text.
func Block(text string, columns int) []string {
	safe := Escape(text)
	var lines []string
	for len(safe) > 0 {
		cut := fit(safe, columns)
		if cut < len(safe) {
			if at := strings.LastIndexByte(safe[:cut], ' '); at > 0 {
				cut = at + 1
			}
		}
		lines = append(lines, safe[:cut])
		safe = safe[cut:]
	}
	return lines
}

// fit returns how many bytes of escaped text fill at most columns, at least one rune.
func fit(safe string, columns int) int {
	used := 0
	for i, r := range safe {
		used += runeWidth(r)
		if used > columns && i > 0 {
			return i
		}
	}
	return len(safe)
}

// width counts terminal columns, never too few: runes from U+1100 on count two, though some take one.
func width(safe string) int {
	n := 0
	for _, r := range safe {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r >= 0x1100 && r != '…' && r != '│':
		return 2
	case unicode.Is(unicode.M, r):
		return 0
	}
	return 1
}

// escapeJSON escapes what Escape would inside an encoded JSON text: outside ASCII it can only stand in strings, and
// \uXXXX means the same there, so the value is unchanged and the bytes are safe on a terminal.
func escapeJSON(encoded []byte) []byte {
	var b strings.Builder
	for _, r := range string(encoded) {
		switch {
		case r < 0x7f || visible(r):
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return []byte(b.String())
}
