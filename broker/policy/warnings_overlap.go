package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"pim-ssh/broker/statement"
)

// power is one thing that a role gives: a login, or a command as an account.
type power struct {
	account statement.Account
	command Command // none: a login
}

func (p power) String() string {
	if p.command == "" {
		return "logging in as " + string(p.account)
	}
	return fmt.Sprintf("%s as %s", p.command, p.account)
}

func comparePowers(a, b power) int {
	return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.command, b.command))
}

// giver is a role that gives a power, for so many approvals and a second factor of the asker.
type giver struct {
	name   statement.RoleName
	slots  int
	factor FactorKind
}

// weaker reports whether fewer approvals are needed than by the other, or as many and a weaker factor.
func (g giver) weaker(than giver) bool {
	ranks := []FactorKind{NoFactor, TOTP, SecurityKey}
	return g.slots < than.slots || g.slots == than.slots && slices.Index(ranks, g.factor) < slices.Index(ranks, than.factor)
}

// price is what the role wants for what it gives.
func (g giver) price() string {
	price := "no approval"
	if g.slots > 0 {
		price = count(g.slots, "approval")
	}
	if g.factor != NoFactor {
		price += " and " + factor(g.factor)
	}
	return price
}

// maxOverlaps is how many pairs of roles are told of: who has more has one reason for all of them.
const maxOverlaps = 100

// overlaps warns of a role that gives on some of the same hosts what another gives for more approvals, or with a stronger factor: it goes around that one.
// Emergency roles do so on purpose, and alarm.
func (c *checker) overlaps() {
	givers, told := c.doc.givers(), map[[2]statement.RoleName]bool{}
	for _, p := range slices.SortedFunc(maps.Keys(givers), comparePowers) {
		all := slices.Concat(givers[p], givers[power{p.account, All}], givers[power{p.account, ""}]) // what gives p, too
		for _, weak := range all {
			c.undercuts(p, weak, givers[p], told)
		}
		if len(told) > maxOverlaps {
			return
		}
	}
}

// undercuts warns of one role beside those that give a power for more approvals.
func (c *checker) undercuts(p power, weak giver, givers []giver, told map[[2]statement.RoleName]bool) {
	for _, strong := range givers {
		pair := [2]statement.RoleName{weak.name, strong.name}
		if !weak.weaker(strong) || told[pair] || !c.doc.Roles[weak.name].Hosts.meets(c.doc.Roles[strong.name].Hosts) {
			continue
		}
		if told[pair] = true; len(told) > maxOverlaps {
			return
		}
		c.say(at("roles", string(weak.name), "approvals"), "needs %s for %s, but %s needs %s for that on some of the same hosts",
			weak.price(), p, strong.name, strong.price())
	}
}

func (d *Document) givers() map[power][]giver {
	givers := map[power][]giver{}
	for _, name := range slices.Sorted(maps.Keys(d.Roles)) {
		role := d.Roles[name]
		if role.Emergency {
			continue
		}
		one := giver{name, Slots(role.Parts()), role.Factors.Ask}
		for _, account := range role.Accounts {
			givers[power{account, ""}] = append(givers[power{account, ""}], one)
		}
		for _, rule := range role.Sudo {
			for _, command := range rule.Commands {
				givers[power{rule.As, command}] = append(givers[power{rule.As, command}], one)
			}
		}
	}
	return givers
}

// meets reports whether some host may be selected by both. Names and labels are not compared: only hosts know their labels.
func (s Selector) meets(other Selector) bool {
	switch {
	case s.Any || other.Any:
		return true
	case len(s.Names) > 0 && len(other.Names) > 0:
		return len(without(s.Names, other.Names)) < len(s.Names) // both are sorted
	case len(s.Labels) > 0 && len(other.Labels) > 0:
		for key, value := range s.Labels {
			if theirs, also := other.Labels[key]; also && theirs != value {
				return false
			}
		}
		return true
	}
	return false
}
