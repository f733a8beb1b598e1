package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

// explanation is what `explain` prints: which rules there are, which of them stop the person, who may help, what to type.
type explanation struct {
	What   string           `json:"what"` // "db-admin@db1", an id, a host, or "refusal"
	Person statement.Person `json:"person"`
	Says   []string         `json:"says"`   // what it is, or what became of it
	Stops  []string         `json:"stops"`  // empty when nothing does
	Rules  []ruling         `json:"rules"`  // of the role it is about; empty for a host
	Needs  []broker.Need    `json:"needs"`  // approvals that are missing
	Unseen []string         `json:"unseen"` // what only brokers check
	Next   []string         `json:"next"`   // what to type
}

func explainCommand(d *desk) *cobra.Command {
	var person string
	cmd := &cobra.Command{
		Use:   "explain [WHAT]",
		Short: "say which rule decides: for a role, a request, a grant, a host, or the last refusal",
		Long: "WHAT is ROLE or ROLE@HOST, a request's or grant's ID, or a HOST; left out, the last refusal that was shown\n" +
			"here. Says which rules there are and which of them stop you, who can approve, what only brokers check, and\n" +
			"what to type next. Everything follows from the policy as it was verified here.",
		Example: "  pim-ssh explain db-admin@db1\n  pim-ssh explain db-admin --person erin\n  pim-ssh explain r-7k2m9",
		Args:    atMostOne("ROLE, ID or HOST", "pim-ssh explain ROLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := d.contact(cmd.Context())
			if err != nil {
				return err
			}
			return c.explain(cmd.Context(), strings.Join(args, ""), person)
		},
		ValidArgsFunction: d.completeRoles,
	}
	cmd.Flags().StringVar(&person, "person", "", "for this `PERSON` and not for you")
	return cmd
}

func (c *contact) explain(ctx context.Context, what, person string) error {
	who := c.person
	if person != "" {
		who = statement.Person(person)
		if _, known := c.chain.Current().People[who]; !known {
			return missing("pim-ssh policy show", "the policy knows no %s%s", person, didYouMean(person, lines(slices.Sorted(maps.Keys(c.chain.Current().People)))))
		}
	}
	hosts, err := c.hosts(ctx)
	if err != nil {
		return err
	}
	e, err := c.explained(ctx, what, who, hosts)
	if err != nil {
		return err
	}
	if c.json() {
		return c.term.JSON(e)
	}
	c.term.Card(e.card())
	return nil
}

// explained finds out what WHAT is: an id, a role, or a host.
func (c *contact) explained(ctx context.Context, what string, who statement.Person, hosts map[statement.HostName]enrolled) (explanation, error) {
	name, _, _ := strings.Cut(what, "@")
	_, isRole := c.chain.Current().Roles[statement.RoleName(name)]
	_, isHost := hosts[statement.HostName(what)]
	switch {
	case what == "":
		return c.explainRefusal(ctx, who, hosts)
	case isRole:
		return c.explainRole(ctx, what, who, hosts)
	case isHost:
		return c.explainHost(statement.HostName(what), who, hosts), nil
	case strings.HasPrefix(what, "r-") || strings.HasPrefix(what, "g-"):
		return c.explainRequest(ctx, what, hosts)
	}
	known := append(roleNames(c.chain.Current()), lines(slices.Sorted(maps.Keys(hosts)))...)
	return explanation{}, missing("pim-ssh roles --all", "%s is no role, no host and no id%s", name, didYouMean(name, known))
}

// explainRole says what a role means for a person, on each of the hosts that are named.
func (c *contact) explainRole(ctx context.Context, what string, who statement.Person, hosts map[statement.HostName]enrolled) (explanation, error) {
	name, where, err := parseAsked(what)
	if err != nil {
		return explanation{}, err
	}
	host := statement.HostName("")
	if len(where.names) > 0 {
		host = where.names[0]
	}
	q := c.inquire(who, name, host, hosts)
	if who == c.person {
		q.used, _ = c.budgetOf(ctx, name)
	}
	e := explanation{What: what, Person: who, Says: gives(q.role)}
	e.rule(q.rulings())
	for _, other := range where.names[min(1, len(where.names)):] {
		beside := c.inquire(who, name, other, hosts)
		e.Stops = append(e.Stops, nonEmpty(beside.eligible().Stops)...)
		e.Stops = append(e.Stops, nonEmpty(beside.reach().Stops)...)
	}
	role, asked := q.role, what
	if host == "" {
		asked += "@HOST"
	}
	next := fmt.Sprintf("pim-ssh request %s --for %s --why \"…\"", asked, span(role.Default))
	if role.Ticket != "" {
		next += " --ticket T"
	}
	switch {
	case len(e.Stops) > 0 && !q.doc.Eligible(who, name):
		e.Next = []string{"ask a steward: " + strings.Join(lines(q.doc.Stewards.People), ", "), "pim-ssh roles"}
	case len(e.Stops) > 0:
		e.Next = []string{"pim-ssh roles"}
	case who != c.person:
		e.Next = []string{fmt.Sprintf("%s types: %s", who, next)}
	default:
		e.Next = []string{next}
	}
	if ends := broker.EligibleUntil(q.doc, who, name); ends != 0 && who == c.person {
		e.Next = append(e.Next, fmt.Sprintf("pim-ssh renew %s --until DATE --why \"…\"", name))
	}
	return e, nil
}

// rule takes rules in, and what of them stops the person, and what only brokers check.
func (e *explanation) rule(rules []ruling) {
	e.Rules = rules
	for _, r := range rules {
		if r.Stops != "" {
			e.Stops = append(e.Stops, r.Stops)
		}
		if r.By == onlyBroker {
			e.Unseen = append(e.Unseen, r.Rule)
		}
	}
}

// explainRequest says where a request stands and by which rules.
func (c *contact) explainRequest(ctx context.Context, id string, hosts map[statement.HostName]enrolled) (explanation, error) {
	r, _, err := c.requestByID(ctx, id)
	if err != nil {
		return explanation{}, err
	}
	now := c.clock()
	what := fmt.Sprintf("%s: %s on %s for %s", r.id(), r.request.Role, joined(r.request.Hosts), r.request.Person)
	e := explanation{What: what, Person: r.request.Person, Needs: r.needs}
	e.rule(c.inquire(r.request.Person, r.request.Role, r.request.Hosts[0], hosts).rulings())
	switch state := r.state(now); {
	case r.grant != nil:
		e.Says = []string{fmt.Sprintf("%s is %s, from %s to %s", r.grantID(), r.grant.Phase(now), r.grant.From, moment(r.grant.Until, now))}
		e.Stops = c.lost(r)
		e.Next = c.withGrant(r, now)
	case r.why != nil && state == api.Pending:
		e.Says, e.Stops = []string{"pending, and nothing can come of it"}, append(e.Stops, r.why.Error())
		e.Next = []string{"pim-ssh withdraw " + short(r.id())}
	case state == api.Pending:
		e.Says = append([]string{"pending until " + moment(r.request.Expires, now), "waiting for " + needed(r.needs)}, r.later(c.pin, now)...)
		e.Next = c.withPending(r, now)
	default:
		e.Says, e.Next = []string{r.settlement(now)}, []string{r.again()}
	}
	return e, nil
}

// lost says what ended a grant, or what of today's policy would no longer give it.
func (c *contact) lost(r reading) []string {
	if r.grant.Ended != nil {
		return ended(r.grant.Ended)
	}
	open := r.dossier
	if _, err := broker.Prove(c.chain, open); err != nil {
		return []string{"under the policy in force it is none: " + err.Error()}
	}
	return nil
}

// withGrant is what to type about a grant.
func (c *contact) withGrant(r reading, now statement.Time) []string {
	phase := r.grant.Phase(now)
	live := phase == broker.PhaseActive || phase == broker.PhaseWaiting
	switch {
	case live && r.request.Person == c.person:
		return append(logins(*r.grant), "pim-ssh cert "+short(r.grantID()), r.extend(), "pim-ssh return "+short(r.grantID()))
	case live:
		return []string{"pim-ssh revoke " + short(r.grantID()) + " --why \"…\""}
	case r.request.Person == c.person:
		return []string{r.again()}
	}
	return []string{"pim-ssh show " + short(r.id())}
}

// withPending is what to type about a pending request.
func (c *contact) withPending(r reading, now statement.Time) []string {
	switch {
	case r.request.Person == c.person:
		return []string{"pim-ssh status " + short(r.id()), "pim-ssh withdraw " + short(r.id())}
	case r.mayDecide(c.pin, now) == nil:
		return []string{"pim-ssh approve " + short(r.id()), "pim-ssh deny " + short(r.id()) + " --why \"…\""}
	}
	return []string{"pim-ssh show " + short(r.id())}
}

// explainHost says which roles reach a host, and which of them the person may ask for.
func (c *contact) explainHost(name statement.HostName, who statement.Person, hosts map[statement.HostName]enrolled) explanation {
	doc, host := c.chain.Current(), hosts[name]
	e := explanation{What: string(name), Person: who}
	e.Says = []string{
		fmt.Sprintf("enrolled under a token of %s's, made at %s", host.token.Person, host.token.Created),
		"labels: " + labelled(host.token.Labels),
		"accounts that only grants log in as: " + joined(doc.Governed(name, host.token.Labels)),
	}
	for _, role := range roleNames(doc) {
		if !doc.Roles[statement.RoleName(role)].Hosts.Selects(name, host.token.Labels) {
			continue
		}
		q := c.inquire(who, statement.RoleName(role), name, hosts)
		says := []string{strings.Join(gives(q.role), "; "), strings.Join(inWords(doc, q.name, who), "; ")}
		e.Rules = append(e.Rules, ruling{Rule: role, Says: says, By: everyJudge, Stops: q.eligible().Stops})
		if q.eligible().Stops == "" {
			e.Next = append(e.Next, fmt.Sprintf("pim-ssh request %s@%s --for %s --why \"…\"", role, name, span(q.role.Default)))
		}
	}
	return e
}

func labelled(labels map[string]string) string {
	var said []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		said = append(said, key+"="+labels[key])
	}
	if len(said) == 0 {
		return "none"
	}
	return strings.Join(said, ",")
}

func (e explanation) card() term.Card {
	fields := []term.Field{{Label: "is", Lines: e.Says}, {Label: "stopped by", Lines: e.Stops}}
	for _, r := range e.Rules {
		text := slices.Clone(r.Says)
		if r.By == onlyBroker {
			text = append(text, "(only brokers check this)")
		}
		fields = append(fields, term.Field{Label: strings.ReplaceAll(r.Rule, "second_factor", "factor"), Lines: text})
	}
	for _, need := range e.Needs {
		fields = append(fields, term.Field{Label: "needs", Lines: []string{need.String()}})
	}
	fields = append(fields, term.Field{Label: "next", Lines: e.Next})
	return term.Card{Title: fmt.Sprintf("%s, for %s", e.What, e.Person), Fields: fields}
}
