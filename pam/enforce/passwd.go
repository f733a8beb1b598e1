package enforce

import (
	"slices"
	"strings"

	"pim-ssh/broker/statement"
)

// withAliases adds every name in passwd that has the uid of a governed account: a uid-0 alias is root under another
// name (authd CVE-2024-9313), and must meet the same doors.
func (p Plan) withAliases(passwd string) Plan {
	uids := uidsByName(passwd)
	governed := map[statement.Account]bool{}
	for _, a := range p.Governed {
		governed[a] = true
	}
	for name, uid := range uids {
		for _, a := range p.Governed {
			if uids[string(a)] == uid && uids[string(a)] != "" {
				governed[statement.Account(name)] = true
			}
		}
	}
	p.Governed = sorted(governed)
	return p
}

// uidsByName reads passwd lines; names that no policy could name stay out, since sshd's Match could not name them either.
func uidsByName(passwd string) map[string]string {
	uids := map[string]string{}
	for line := range strings.Lines(passwd) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 7 {
			continue
		}
		if _, err := statement.ParseAccount(fields[0]); err == nil {
			uids[fields[0]] = fields[2]
		}
	}
	return uids
}

// others are the accounts on this host that are not governed, sorted.
func (p Plan) others(passwd string) []string {
	var out []string
	for name := range uidsByName(passwd) {
		if !slices.Contains(p.Governed, statement.Account(name)) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
