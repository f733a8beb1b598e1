package certs

import (
	"strings"

	"pim-ssh/broker/statement"
)

// hostSet is what an address in known_hosts may be made of: no pattern, marker, comma or blank.
const hostSet = "abcdefghijklmnopqrstuvwxyz0123456789.:-[]"

// KnownHosts returns known_hosts lines that vouch for a host's keys under its names, addresses and [host]:port
// forms, one line per key. A name that ssh could read as a pattern, marker or second field is left out; without a
// name or a key the answer is empty and ssh refuses.
func KnownHosts(names []string, keys []statement.Key) string {
	var safe []string
	for _, name := range names {
		if host, ok := strings.CutSuffix(name, "]:22"); ok {
			name = strings.TrimPrefix(host, "[") // ssh looks port 22 up without its port
		}
		if name != "" && len(name) <= 255 && name[0] != '-' && only(name, hostSet) {
			safe = append(safe, name)
		}
	}
	if len(safe) == 0 {
		return ""
	}
	var b strings.Builder
	for _, k := range keys {
		if _, err := statement.ParseKey(string(k)); err == nil {
			b.WriteString(strings.Join(safe, ",") + " " + string(k) + "\n")
		}
	}
	return b.String()
}
