package main

import (
	"fmt"
	"slices"
	"strings"

	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// judge is who can judge a rule.
type judge string

// The closed set of judges. What only brokers judge is worth what the brokers are.
const (
	everyJudge judge = "everybody" // brokers, hosts and auditors, from signed bytes
	onlyBroker judge = "brokers"
)

// ruling is one rule of a role in words, as it concerns one person.
type ruling struct {
	Rule  string   `json:"rule"` // the field of policy.yaml
	Says  []string `json:"says"`
	By    judge    `json:"judged_by"`
	Stops string   `json:"stops"` // why it stops the person now; "" when it does not
}

// inquiry asks what a role means for a person, on a host or anywhere, now.
type inquiry struct {
	*contact
	who   statement.Person
	name  statement.RoleName
	host  statement.HostName // "" anywhere
	role  policy.Role
	doc   *policy.Document
	hosts map[statement.HostName]enrolled
	used  *api.BudgetView // by the brokers' word; nil: unknown, or no budget
}

func (c *contact) inquire(who statement.Person, name statement.RoleName, host statement.HostName, hosts map[statement.HostName]enrolled) inquiry {
	doc := c.chain.Current()
	return inquiry{contact: c, who: who, name: name, host: host, role: doc.Roles[name], doc: doc, hosts: hosts}
}

// rulings says every rule of the role, those that the policy leaves out left out.
func (q inquiry) rulings() []ruling {
	all := []ruling{q.eligible(), q.active(), q.reach()}
	all = append(all,
		ruling{Rule: "longest", Says: []string{span(q.role.Longest)}},
		ruling{Rule: "default", Says: []string{span(q.role.Default)}},
		ruling{Rule: "pending", Says: []string{"an unanswered request expires after " + span(q.role.Pending)}},
		ruling{Rule: "approvals", Says: inWords(q.doc, q.name, q.who)},
		q.factor(), q.presence(), q.words(), q.ticket(), q.budget(), q.hours(), q.networks(), q.hook(),
		ruling{Rule: "offline", Says: []string{offline(q.role.Offline)}},
	)
	all = slices.DeleteFunc(all, func(r ruling) bool { return len(r.Says) == 0 })
	for i := range all {
		if all[i].By == "" {
			all[i].By = everyJudge
		}
	}
	return all
}

// eligible says by what the person may ask, and until when.
func (q inquiry) eligible() ruling {
	r := ruling{Rule: "eligible"}
	now, held := q.clock(), false
	for _, e := range q.doc.Entries(q.who, q.name) {
		r.Says = append(r.Says, q.entry(e))
		held = held || e.From <= now && (e.Until == 0 || now < e.Until) && (q.host == "" || e.Covers(q.host, q.hosts[q.host].token.Labels, now))
	}
	switch {
	case len(r.Says) == 0:
		r.Says = []string{fmt.Sprintf("%s is not: a steward changes that with a new revision of the policy", q.who)}
		r.Stops = fmt.Sprintf("%s is not eligible for %s", q.who, q.name)
	case !held && q.host != "":
		r.Stops = fmt.Sprintf("%s is not eligible for %s on %s now", q.who, q.name, q.host)
	case !held:
		r.Stops = fmt.Sprintf("%s is not eligible for %s now", q.who, q.name)
	}
	return r
}

// entry is one eligibility in words: "alice, for ever", "alice until … on db1".
func (q inquiry) entry(e policy.Eligibility) string {
	var b strings.Builder
	b.WriteString(string(e.Who))
	if _, group := q.doc.Groups[policy.GroupName(e.Who)]; group {
		b.WriteString(" (a group)")
	}
	if e.From > q.clock() {
		b.WriteString(" from " + moment(e.From, q.clock()))
	}
	if e.Until == 0 {
		b.WriteString(", without an end")
	} else {
		b.WriteString(" until " + moment(e.Until, q.clock()))
	}
	if e.Hosts != nil {
		b.WriteString(", on " + selected(*e.Hosts))
	}
	return b.String()
}

// active says where the stewards approved beforehand what the person asks.
func (q inquiry) active() ruling {
	if q.host == "" || !q.doc.ActiveFor(q.who, q.name, []statement.HostName{q.host}, q.clock()) {
		return ruling{}
	}
	return ruling{Rule: "active", Says: []string{"the stewards approved it beforehand: no approval and no second factor is needed here"}}
}

func (q inquiry) reach() ruling {
	r := ruling{Rule: "hosts", Says: []string{selected(q.role.Hosts)}}
	_, known := q.hosts[q.host]
	switch {
	case q.host == "":
	case !known:
		r.Stops = fmt.Sprintf("no host %s is enrolled", q.host)
	case !q.role.Hosts.Selects(q.host, q.hosts[q.host].token.Labels):
		r.Stops = fmt.Sprintf("%s does not reach %s", q.name, q.host)
	}
	return r
}

// factor says what is demanded beside a signature; a code is the brokers' to check.
func (q inquiry) factor() ruling {
	f := q.role.Factors
	r := ruling{Rule: "second_factor"}
	for _, side := range []struct {
		does string
		kind policy.FactorKind
	}{{"asking", f.Ask}, {"approving", f.Approve}} {
		switch side.kind {
		case policy.NoFactor:
		case policy.SecurityKey:
			r.Says = append(r.Says, side.does+" wants a security key that verifies its holder")
		case policy.TOTP:
			r.Says, r.By = append(r.Says, side.does+" wants a code of an authenticator app"), onlyBroker
		}
	}
	if f.Fresh > 0 {
		r.Says = append(r.Says, "one code serves for "+span(f.Fresh))
	}
	if f.Ask == policy.SecurityKey && !q.hasSecurityKey() {
		r.Stops = fmt.Sprintf("the policy lists no security key of %s", q.who)
	}
	return r
}

func (q inquiry) hasSecurityKey() bool {
	return slices.ContainsFunc(q.doc.People[q.who].Keys, statement.Key.SecurityKey)
}

// presence says what opens without approval.
func (q inquiry) presence() ruling {
	switch {
	case q.doc.V < 2 || !q.role.Unapproved() || q.role.Factors.Ask == policy.SecurityKey:
		return ruling{}
	case q.role.PlainKey:
		return ruling{Rule: "plain_key", Says: []string{"opens for any key of the person's: no touch is wanted, and every alarm rings"}}
	}
	r := ruling{Rule: "plain_key", Says: []string{"opens without approval, so a security key must sign; every alarm rings"}}
	if !q.hasSecurityKey() {
		r.Stops = fmt.Sprintf("the policy lists no security key of %s", q.who)
	}
	return r
}

// words says what is demanded of reasons.
func (q inquiry) words() ruling {
	r := ruling{Rule: "reason"}
	if q.role.ReasonLeast > 0 {
		r.Says = append(r.Says, fmt.Sprintf("of %d characters or more", q.role.ReasonLeast))
	}
	if q.role.ApproverReason {
		r.Says = append(r.Says, "approvers give one too")
	}
	return r
}

func (q inquiry) ticket() ruling {
	if q.role.Ticket == "" {
		return ruling{}
	}
	return ruling{Rule: "ticket", Says: []string{"such as " + q.role.Ticket}}
}

func (q inquiry) budget() ruling {
	if q.role.Budget == (policy.Budget{}) {
		return ruling{}
	}
	r := ruling{Rule: "budget", By: onlyBroker, Says: []string{fmt.Sprintf("%s per %s", span(q.role.Budget.Time), span(q.role.Budget.Per))}}
	if q.used != nil {
		r.Says[0] += fmt.Sprintf(", of which %s are used", span(q.used.Used))
	}
	if q.used != nil && q.used.Used >= q.used.Time {
		r.Stops = fmt.Sprintf("nothing is left for %s of the budget", q.name)
	}
	return r
}

func (q inquiry) hours() ruling {
	if q.role.Hours == nil {
		return ruling{}
	}
	r := ruling{Rule: "hours", By: onlyBroker, Says: []string{weekInWords(*q.role.Hours)}}
	inside, local, err := within(*q.role.Hours, q.now())
	switch {
	case err != nil:
		r.Says = append(r.Says, err.Error())
	case !inside:
		r.Stops = fmt.Sprintf("it is %s there, outside the hours of %s", local, q.name)
	}
	return r
}

func (q inquiry) networks() ruling {
	return ruling{Rule: "networks", By: onlyBroker, Says: nonEmpty(strings.Join(q.role.Networks, ", "))}
}

func (q inquiry) hook() ruling {
	if q.role.Hook == nil {
		return ruling{}
	}
	return ruling{Rule: "hook", By: onlyBroker, Says: []string{q.role.Hook.URL + " is asked first: it may refuse, or demand more approvals"}}
}

func offline(o policy.Offline) string {
	switch o.Mode {
	case policy.OfflineGrace:
		return "a host that is cut off goes on opening sessions for " + span(o.Grace)
	case policy.OfflineWindow:
		return "a host that is cut off goes on opening sessions until the window ends"
	default:
		return "a host that is cut off opens no session"
	}
}

// selected says a selector in words.
func selected(s policy.Selector) string {
	switch {
	case s.Any:
		return "any host"
	case len(s.Names) > 0:
		return joined(s.Names)
	}
	var labels []string
	for key, value := range s.Labels {
		labels = append(labels, key+"="+value)
	}
	slices.Sort(labels)
	return strings.Join(labels, ",")
}
