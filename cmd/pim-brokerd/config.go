package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Where things lie when nothing else is said.
const (
	configFile    = "/etc/pim-ssh/broker.yaml"
	brokerDir     = "/var/lib/pim-ssh/broker"
	defaultListen = ":7443"
)

// Files in a broker's directory, beside cluster's.
const (
	nameFile     = "name"
	identityFile = "identity"
	caFile       = "ca"
	logFile      = "log"
	recordDir    = "record"
)

// config is /etc/pim-ssh/broker.yaml; packaging/examples/broker.yaml shows every default. The file is optional, and so
// is everything in it.
type config struct {
	Name   statement.BrokerName `yaml:"name"`   // the broker's name in the policy; default: what init wrote
	Listen string               `yaml:"listen"` // host:port
	Dir    string               `yaml:"dir"`
	CA     string               `yaml:"ca"`  // a private key file, or agent:SOCKET#SHA256:…; default: what init made
	Log    string               `yaml:"log"` // the same, for the key that signs checkpoints of the record
}

// keys are the names people may write.
var keys = []string{"name", "listen", "dir", "ca", "log"}

// readConfig reads strictly: an unknown or doubled key is an error with file, line and column. Without a path it reads
// configFile, which need not be there; a file that somebody named must.
func readConfig(named string) (config, error) {
	path := cmp.Or(named, configFile)
	data, err := os.ReadFile(path)
	if err != nil && (named != "" || !errors.Is(err, fs.ErrNotExist)) {
		return config{}, err
	}
	c, err := parseConfig(path, data)
	if err != nil {
		return config{}, err
	}
	return c.complete()
}

func parseConfig(path string, data []byte) (config, error) {
	var c config
	err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(&c)
	if err != nil && !errors.Is(err, io.EOF) {
		return config{}, located(path, err)
	}
	return c, nil
}

// complete fills in the defaults.
func (c config) complete() (config, error) {
	if c.Dir == "" {
		c.Dir = brokerDir
	}
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if c.CA == "" {
		c.CA = filepath.Join(c.Dir, caFile)
	}
	if c.Log == "" {
		c.Log = filepath.Join(c.Dir, logFile)
	}
	if c.Name != "" {
		name, err := statement.ParseBrokerName(string(c.Name))
		c.Name = name
		return c, err
	}
	name, err := readName(c.Dir)
	c.Name = name
	return c, err
}

// readName returns the name that init wrote.
func readName(dir string) (statement.BrokerName, error) {
	data, err := os.ReadFile(filepath.Join(dir, nameFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: no broker here; type: pim-brokerd init --name NAME --address HOST:PORT", dir)
	}
	if err != nil {
		return "", err
	}
	return statement.ParseBrokerName(strings.TrimSuffix(string(data), "\n"))
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
