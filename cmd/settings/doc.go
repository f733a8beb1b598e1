// Package settings reads what a daemon's own small YAML file says, strictly: host.yaml of pim-hostd, broker.yaml of
// pim-brokerd.
//
// It decides whether the file is plain and names nothing unknown, and says where it does not, and which word was meant. It
// never opens a file, and knows neither what a key is for nor its default: cmd/*/config.go does. Policy is not read here but
// in package policyfile, which tells every problem at once. There is only parse.go to read.
package settings
