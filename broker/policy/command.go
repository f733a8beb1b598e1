package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Command is what a sudo rule lets somebody run: All, or one absolute path followed by the exact arguments, separated by
// single spaces. No arguments means exactly none. There are no wildcards, variables, quotes or escapes.
type Command string

// All is every command.
const All Command = "ALL"

// MaxCommand is the longest command in bytes.
const MaxCommand = 512

const (
	letters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	pathAlpha = letters + "_.+-"
	argsAlpha = letters + "_.+-/@%:=,"
)

// ParseCommand reads a command strictly: what it lets through means the same to us, to sudoers once Sudoers has escaped
// it, and to the shell.
func ParseCommand(text string) (Command, error) {
	if text == string(All) {
		return All, nil
	}
	if len(text) > MaxCommand {
		return "", fmt.Errorf("command is longer than %d bytes", MaxCommand)
	}
	words := strings.Split(text, " ")
	if err := checkPath(words[0]); err != nil {
		return "", err
	}
	for _, word := range words[1:] {
		if err := checkArgument(word); err != nil {
			return "", err
		}
	}
	return Command(text), nil
}

// checkPath refuses what sudoers would read as anything but one executable: relative paths, directories, patterns,
// aliases, and sudoedit, which is a sudoers keyword in disguise.
func checkPath(path string) error {
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("command must be ALL or start with an absolute path, not %q", path)
	}
	steps := strings.Split(path[1:], "/")
	for _, step := range steps {
		if step == "" || step == "." || step == ".." {
			return fmt.Errorf("path %q must name one file, without empty, . or .. steps", path)
		}
		if odd, found := firstOutside(step, pathAlpha); found {
			return fmt.Errorf("path %q holds %q: only letters, digits and _ . + - are understood", path, odd)
		}
	}
	if steps[len(steps)-1] == "sudoedit" {
		return errors.New("sudoedit is not a command: it edits files by sudo's own rules")
	}
	return nil
}

func checkArgument(word string) error {
	if word == "" {
		return errors.New("arguments are separated by exactly one space, with none at the end")
	}
	if odd, found := firstOutside(word, argsAlpha); found {
		return fmt.Errorf("argument %q holds %q: only letters, digits and _ . + - / @ %% : = , are understood", word, odd)
	}
	for step := range strings.FieldsFuncSeq(word, isSeparator) {
		if step == ".." {
			return fmt.Errorf("argument %q climbs: it holds .. as a step", word)
		}
	}
	return nil
}

// isSeparator splits an argument at what may stand before a path: -o=../x, host:../x.
func isSeparator(r rune) bool { return strings.ContainsRune("/:=,@", r) }

func firstOutside(word, alphabet string) (rune, bool) {
	for _, r := range word {
		if !strings.ContainsRune(alphabet, r) {
			return r, true
		}
	}
	return 0, false
}

// Sudoers returns the command as it stands in a sudoers rule: every character that sudoers reads specially is escaped, and
// a command without arguments says so with "", because sudoers takes a bare path to mean any arguments at all.
// It is only meaningful for commands that ParseCommand lets through.
func (c Command) Sudoers() string {
	if c == All {
		return string(All)
	}
	path, args, given := strings.Cut(string(c), " ")
	if !given {
		return path + ` ""`
	}
	escape := strings.NewReplacer(",", `\,`, ":", `\:`, "=", `\=`)
	return path + " " + escape.Replace(args)
}
