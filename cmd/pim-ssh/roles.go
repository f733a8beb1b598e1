package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// roleJSON is one line of `roles -o json`.
type roleJSON struct {
	Role      statement.RoleName   `json:"role"`
	Hosts     []statement.HostName `json:"hosts"` // enrolled ones it reaches
	Accounts  []statement.Account  `json:"accounts"`
	Sudo      []policy.SudoRule    `json:"sudo"`
	Longest   statement.Seconds    `json:"longest"`
	Default   statement.Seconds    `json:"default"`
	Approvals int                  `json:"approvals"` // 0: none needed
	Approvers []statement.Person   `json:"approvers"` // without the person asking
	Eligible  bool                 `json:"eligible"`
}

func rolesCommand(d *desk) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "roles",
		Short: "list the roles you may ask for, where, and who approves",
		Args:  none("pim-ssh roles"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.roles(cmd.Context(), all)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also the roles you may not ask for")
	return cmd
}

func (c *contact) roles(ctx context.Context, all bool) error {
	hosts, err := c.hosts(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, name := range roleNames(c.chain.Current()) {
		role := c.role(statement.RoleName(name), hosts)
		if !role.Eligible && !all {
			continue
		}
		if c.json() {
			if err := c.term.JSON(role); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, role.row(c.chain.Current().Roles[role.Role]))
	}
	if c.json() {
		return nil
	}
	if len(rows) == 0 {
		c.term.Say("you may ask for no role; see all with: pim-ssh roles --all")
		return nil
	}
	c.term.Table([]string{"ROLE", "HOSTS", "LONGEST", "APPROVALS", "GIVES"}, rows)
	return nil
}

func (c *contact) role(name statement.RoleName, hosts map[statement.HostName]enrolled) roleJSON {
	doc := c.chain.Current()
	role := doc.Roles[name]
	out := roleJSON{
		Role: name, Accounts: role.Accounts, Sudo: role.Sudo, Longest: role.Longest, Default: role.Default,
		Eligible: doc.Eligible(c.person, name),
	}
	if !role.Approvals.None {
		out.Approvals = max(role.Approvals.Count, 1)
	}
	for _, person := range doc.Approvers(name) {
		if person != c.person {
			out.Approvers = append(out.Approvers, person)
		}
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		if role.Hosts.Selects(host, hosts[host].token.Labels) {
			out.Hosts = append(out.Hosts, host)
		}
	}
	return out
}

func (r roleJSON) row(role policy.Role) []string {
	approvals := "none"
	if r.Approvals > 0 {
		approvals = fmt.Sprintf("%d of %s", r.Approvals, joined(r.Approvers))
	}
	return []string{string(r.Role), joined(r.Hosts), span(r.Longest), approvals, strings.Join(gives(role), "; ")}
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
