package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"pim-ssh/broker/statement"
	"pim-ssh/cmd/settings"
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
	var c config
	if err := settings.Parse(path, data, keys, &c); err != nil {
		return config{}, err
	}
	return c.complete()
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
