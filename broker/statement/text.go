package statement

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable is ASCII without space and control characters.
const printable = lower + digits + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// CheckText is the one rule for words people write: valid UTF-8 of at most limit bytes without control characters
// (newline and escape among them). Bidirectional marks and the like pass: whoever displays text escapes it.
func CheckText(s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%d bytes: at most %d", len(s), limit)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%.40q: not UTF-8", s)
	}
	if i := strings.IndexFunc(s, unicode.IsControl); i >= 0 {
		return fmt.Errorf("%.40q: a control character at byte %d: write it on one line", s, i)
	}
	return nil
}
