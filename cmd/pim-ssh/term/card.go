package term

import (
	"io"
	"strings"
)

// cardColumns is how wide the text beside a label may be.
const cardColumns = 72

// Field is one labelled part of a card. Quoted text came from a person: it stands behind a bar on every line, so
// that no line of it can pass for one of ours.
type Field struct {
	Label  string
	Lines  []string
	Quoted bool
}

// Card is a thing shown in full: a title and fields. Fields without lines are left out.
type Card struct {
	Title  string
	Fields []Field
}

// Card writes a card to stdout.
func (t *Terminal) Card(c Card) { io.WriteString(t.out, c.text()) }

// TalkCard writes a card to stderr, whatever --quiet says: who decides must see it.
func (t *Terminal) TalkCard(c Card) { io.WriteString(t.talk, c.text()) }

func (c Card) text() string {
	var b strings.Builder
	b.WriteString(Escape(c.Title) + "\n")
	for _, f := range c.Fields {
		label := f.Label
		for _, line := range f.shown() {
			b.WriteString("  " + pad(label, 10) + "  " + line + "\n")
			label = ""
		}
	}
	return b.String()
}

func (f Field) shown() []string {
	bar := ""
	if f.Quoted {
		bar = "│ "
	}
	var lines []string
	for _, line := range f.Lines {
		for _, part := range Block(line, cardColumns) {
			lines = append(lines, bar+part)
		}
	}
	return lines
}

// Table writes rows to stdout under a header, in columns as wide as their content. Every cell but a row's last is
// cut to cellColumns; the last to lastColumns.
func (t *Terminal) Table(header []string, rows [][]string) {
	const cellColumns, lastColumns = 40, 80
	cut := make([][]string, 0, len(rows)+1)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			limit := cellColumns
			if i == len(row)-1 {
				limit = lastColumns
			}
			cells[i] = Brief(cell, limit)
		}
		cut = append(cut, cells)
	}
	io.WriteString(t.out, align(cut))
}

func align(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], width(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			if i == len(row)-1 {
				b.WriteString(strings.TrimRight(cell, " ") + "\n")
				continue
			}
			b.WriteString(pad(cell, widths[i]) + "  ")
		}
	}
	return b.String()
}

func pad(safe string, columns int) string {
	return safe + strings.Repeat(" ", max(0, columns-width(safe)))
}
