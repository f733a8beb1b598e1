package term

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// quiet is how many modules of light a picture needs around it, so that cameras find it.
const quiet = 4

// Picture draws a square of dark and light modules on /dev/tty, and the lines below it: for what a camera reads from the screen
// and no file should hold. It is ErrNoInput when nobody looks.
func (t *Terminal) Picture(dark [][]bool, below ...string) error {
	if t.opt.NoInput {
		return ErrNoInput
	}
	tty, err := os.OpenFile(t.opt.TTY, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("%w (%s)", ErrNoInput, err)
	}
	defer tty.Close()
	var b strings.Builder
	for row := -quiet; row < len(dark)+quiet; row += 2 {
		b.WriteString(t.paintRow(dark, row) + "\n")
	}
	for _, line := range below {
		b.WriteString(Escape(line) + "\n")
	}
	_, err = io.WriteString(tty, b.String())
	return err
}

// paintRow draws two rows of modules in one line: light is white where colours are shown, and a block where they are not.
func (t *Terminal) paintRow(dark [][]bool, row int) string {
	var b strings.Builder
	for column := -quiet; column < len(dark)+quiet; column++ {
		upper, lower := light(dark, row, column), light(dark, row+1, column)
		switch {
		case upper && lower:
			b.WriteRune('█')
		case upper:
			b.WriteRune('▀')
		case lower:
			b.WriteRune('▄')
		default:
			b.WriteByte(' ')
		}
	}
	if !t.opt.Colour {
		return b.String()
	}
	return "\x1b[97;40m" + b.String() + "\x1b[0m"
}

func light(dark [][]bool, row, column int) bool {
	inside := row >= 0 && row < len(dark) && column >= 0 && column < len(dark)
	return !inside || !dark[row][column]
}
