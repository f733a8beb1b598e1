package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// roleJSON is one line of `roles -o json`: the role by the verified policy, and what is used of its budget by the brokers' word.
type roleJSON struct {
	Role      statement.RoleName   `json:"role"`
	Hosts     []statement.HostName `json:"hosts"` // enrolled ones it reaches
	Accounts  []statement.Account  `json:"accounts"`
	Sudo      []policy.SudoRule    `json:"sudo"`
	Longest   statement.Seconds    `json:"longest"`
	Default   statement.Seconds    `json:"default"`
	Approvals int                  `json:"approvals"` // in all its parts; 0: none needed
	Approvers []statement.Person   `json:"approvers"` // without the person asking
	Eligible  bool                 `json:"eligible"`

	Until     statement.Time    `json:"eligible_until,omitzero"` // none: for ever, or not at all
	Parts     []policy.Part     `json:"parts,omitempty"`         // of the quorum, when there are several
	Fallback  []policy.Fallback `json:"fallback,omitempty"`
	Factors   policy.Factors    `json:"factors,omitzero"`
	Reason    int               `json:"reason_least,omitzero"`
	Ticket    string            `json:"ticket,omitzero"`
	Emergency bool              `json:"emergency,omitzero"`
	Hours     *policy.Hours     `json:"hours,omitzero"`
	Networks  []string          `json:"networks,omitempty"`
	Budget    *api.BudgetView   `json:"budget,omitzero"`
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
	client, err := c.as(ctx)
	if err != nil {
		return err
	}
	views, err := client.Roles(ctx)
	if err != nil {
		c.term.Warn("what is used of budgets is left out: %s", err)
	}
	var rows [][]string
	for _, name := range roleNames(c.chain.Current()) {
		role := c.role(statement.RoleName(name), hosts)
		role.budget(views)
		if !role.Eligible && !all {
			continue
		}
		if c.json() {
			if err := c.term.JSON(role); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, c.roleRow(role))
	}
	if c.json() {
		return nil
	}
	if len(rows) == 0 {
		c.term.Say("you may ask for no role; see all with: pim-ssh roles --all")
		return nil
	}
	c.term.Table([]string{"ROLE", "HOSTS", "LONGEST", "APPROVALS", "ALSO", "GIVES"}, rows)
	c.term.Say("all about one of them: pim-ssh explain ROLE@HOST")
	c.ending(c.me().Eligible...)
	return nil
}

func (c *contact) role(name statement.RoleName, hosts map[statement.HostName]enrolled) roleJSON {
	doc := c.chain.Current()
	role := doc.Roles[name]
	out := roleJSON{
		Role: name, Accounts: role.Accounts, Sudo: role.Sudo, Longest: role.Longest, Default: role.Default,
		Eligible: doc.Eligible(c.person, name),
	}
	if parts := role.Parts(); len(parts) > 0 {
		out.Approvals = policy.Slots(parts)
		if len(parts) > 1 {
			out.Parts = parts
		}
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
	out.Until, out.Fallback, out.Factors, out.Reason = c.eligibleUntil(name), role.Fallback, role.Factors, role.ReasonLeast
	out.Ticket, out.Emergency, out.Hours, out.Networks = role.Ticket, role.Emergency, role.Hours, role.Networks
	return out
}

// budget takes the brokers' word for what is used.
func (r *roleJSON) budget(views []api.RoleView) {
	for _, view := range views {
		if view.Role == r.Role {
			r.Budget = view.Budget
		}
	}
}

func (c *contact) roleRow(r roleJSON) []string {
	doc := c.chain.Current()
	also := strings.Join(r.also(c.clock()), "; ")
	return []string{
		string(r.Role), joined(r.Hosts), span(r.Longest), approvalsInShort(doc, r.Role, c.person), also, strings.Join(gives(doc.Roles[r.Role]), "; "),
	}
}

// approvalsInShort fits a table: "1 of bob,carol + 1 of frank".
func approvalsInShort(doc *policy.Document, name statement.RoleName, asker statement.Person) string {
	role := doc.Roles[name]
	if role.Emergency {
		return "none, reviewed after"
	}
	if role.Approvals.None {
		return "none"
	}
	var said []string
	for _, part := range role.Parts() {
		from := slices.DeleteFunc(doc.Members(part.From), func(one statement.Person) bool { return one == asker })
		said = append(said, fmt.Sprintf("%d of %s", part.Count, joined(from)))
	}
	return strings.Join(said, " + ")
}

// also is what the role wants beside approvals, a word for each.
func (r roleJSON) also(now statement.Time) []string {
	var said []string
	if r.Until > now {
		said = append(said, "until "+r.Until.String())
	}
	if r.Factors.Ask != policy.NoFactor {
		said = append(said, string(r.Factors.Ask))
	}
	if r.Ticket != "" {
		said = append(said, "ticket")
	}
	if r.Budget != nil {
		said = append(said, fmt.Sprintf("%s of %s per %s used", span(r.Budget.Used), span(r.Budget.Time), span(r.Budget.Per)))
	}
	if r.Hours != nil {
		said = append(said, weekInWords(*r.Hours))
	}
	if len(r.Networks) > 0 {
		said = append(said, "some networks")
	}
	if len(r.Fallback) > 0 {
		said = append(said, "stand-ins after "+span(r.Fallback[0].After))
	}
	if len(said) == 0 {
		return []string{"-"}
	}
	return said
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
