package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/goccy/go-yaml"

	"pim-ssh/broker/policy"
)

// Parse reads text into a pointer to a struct with yaml tags; an empty text leaves it as it was. An unknown or doubled key
// is an error with the file's path, line and column, and the nearest of the keys that people may write.
func Parse(path string, text []byte, keys []string, into any) error {
	err := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(into)
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	p, meant := at.GetToken().Position, ""
	if near, found := policy.Nearest(at.GetToken().Value, keys); found {
		meant = fmt.Sprintf(": did you mean %q?", near)
	}
	return fmt.Errorf("%s:%d:%d: %s%s", path, p.Line, p.Column, at.GetMessage(), meant)
}
