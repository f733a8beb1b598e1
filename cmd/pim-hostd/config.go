package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/settings"
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
	if err := settings.Parse(path, data, keys, &w); err != nil {
		return config{}, err
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
