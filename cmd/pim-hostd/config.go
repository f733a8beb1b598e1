package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/goccy/go-yaml"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/pam/enforce"
)

// config is /etc/pim-ssh/host.yaml. The file is optional, and so is everything in it.
type config struct {
	Exempt []enforce.Exempt
	Broker string // host:port to dial in place of the addresses in policy; the pins stay
}

// written is the file as people write it.
type written struct {
	Exempt []struct {
		Account  string   `yaml:"account"`
		As       string   `yaml:"as"` // root when absent
		Commands []string `yaml:"commands"`
	} `yaml:"exempt"`
	Broker string `yaml:"broker"`
}

// keys are the names people may write.
var keys = []string{"exempt", "account", "as", "commands", "broker"}

// readConfig reads strictly: an unknown or doubled key, a command that is not exact, an account outside the grammar
// are errors with file and line.
func readConfig(path string) (config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return config{}, nil
	}
	if err != nil {
		return config{}, err
	}
	return parseConfig(path, data)
}

func parseConfig(path string, data []byte) (config, error) {
	var w written
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&w); err != nil && !errors.Is(err, io.EOF) {
		return config{}, located(path, err)
	}
	c := config{Broker: w.Broker}
	for i, e := range w.Exempt {
		account, err := statement.ParseAccount(e.Account)
		if err != nil {
			return config{}, fmt.Errorf("%s: exempt %d: %w", path, i+1, err)
		}
		if e.As == "" {
			e.As = "root"
		}
		as, err := statement.ParseAccount(e.As)
		if err != nil {
			return config{}, fmt.Errorf("%s: exempt %s: as: %w", path, account, err)
		}
		exempt := enforce.Exempt{Account: account, As: as}
		for _, text := range e.Commands {
			command, err := policy.ParseCommand(text)
			if err != nil {
				return config{}, fmt.Errorf("%s: exempt %s: %w", path, account, err)
			}
			exempt.Commands = append(exempt.Commands, command)
		}
		c.Exempt = append(c.Exempt, exempt)
	}
	return c, nil
}

// located puts file:line:column before a YAML error, and what an unknown key may have meant after it.
func located(path string, err error) error {
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
