package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker/statement"
	"pim-ssh/certs"
)

func knownHostsCommand(d *desk) *cobra.Command {
	return &cobra.Command{
		Use:   "known-hosts HOST",
		Short: "print a host's keys as operators vouched for them (for ssh's KnownHostsCommand)",
		Long: "Answers offline from the enrolments seen last, each verified here: signed by the host under a token that an\n" +
			"operator of this deployment signed. Prints nothing for a host that nobody vouched for. For plain ssh, write\n" +
			"in ~/.ssh/config:  KnownHostsCommand /usr/bin/pim-ssh known-hosts %H",
		Args: one("HOST", "pim-ssh known-hosts db1"),
		RunE: func(_ *cobra.Command, args []string) error {
			return d.knownHosts(args[0])
		},
	}
}

// knownHosts exits 0 also for an unknown host: ssh gives up on a command that fails, and asks of every host.
func (d *desk) knownHosts(asked string) error {
	p, err := d.pinned()
	if err != nil {
		return err
	}
	kept, err := d.keptHosts(p.chain)
	if err != nil {
		return err
	}
	for _, host := range kept {
		if host.answersTo(asked) {
			d.term.Bytes([]byte(certs.KnownHosts([]string{asked}, host.host.HostKeys)))
		}
	}
	return nil
}

// answersTo reports whether ssh, looking for asked, means this host: by name or by an address of its token, with or
// without a port.
func (e enrolled) answersTo(asked string) bool {
	bare := asked
	if inner, bracketed := strings.CutPrefix(asked, "["); bracketed {
		bare, _, _ = strings.Cut(inner, "]")
	}
	return statement.HostName(bare) == e.token.Name || slices.Contains(e.token.Addresses, asked) || slices.Contains(e.token.Addresses, bare)
}
