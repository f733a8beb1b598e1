package main

import (
	"context"
	"fmt"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/cmd/pim-ssh/term"
)

// What brokers alone know is shown, and marked: it is worth what the brokers are, and nothing that is signed rests on it.

// wordJSON is what brokers alone say of a request.
type wordJSON struct {
	Source string            `json:"source,omitzero"` // the address it came from
	Local  string            `json:"local,omitzero"`  // by the clock of the role's hours
	Code   bool              `json:"code"`            // a right code of the asker's came with it
	Hook   string            `json:"hook,omitzero"`   // the hook's own id of its evaluation
	More   int               `json:"more,omitzero"`   // approvals that the hook demands beside the role's own
	First  bool              `json:"first"`           // the asker never had this role before
	Budget *api.BudgetView   `json:"budget,omitzero"`
	role   policy.Role       // by the verified policy
	asked  statement.Seconds // for how long
	person statement.Person
}

func (c *contact) word(r reading, view api.RequestView) wordJSON {
	w := wordJSON{
		Source: view.Judged.Source, Local: view.Judged.Local, More: view.More, First: view.First, Budget: view.Budget,
		role: c.chain.Current().Roles[r.request.Role], asked: r.request.Duration, person: r.request.Person,
	}
	w.Code = view.Judged.Code != nil && view.Judged.Code.Right
	if view.Judged.Hook != nil {
		w.Hook = view.Judged.Hook.Evaluation
	}
	return w
}

// lines says it in words, each a thing that an approver would want to know.
func (w wordJSON) lines() []string {
	var said []string
	if w.Source != "" {
		said = append(said, "it came from "+w.Source)
	}
	if w.role.Hours != nil && w.Local != "" {
		said = append(said, "it was "+w.Local+" in "+w.role.Hours.Zone)
	}
	if w.role.Factors.Ask == policy.TOTP {
		said = append(said, map[bool]string{true: "the code was right", false: "a code was right a short while before"}[w.Code])
	}
	if w.First {
		said = append(said, fmt.Sprintf("%s never had this role before", w.person))
	}
	if w.Budget != nil {
		said = append(said, fmt.Sprintf("budget: %s of %s per %s used, and this would be %s", span(w.Budget.Used), span(w.Budget.Time), span(w.Budget.Per), span(w.asked)))
	}
	if w.Hook != "" {
		said = append(said, fmt.Sprintf("the hook %s has nothing against it (evaluation %s)", w.role.Hook.URL, w.Hook))
	}
	if w.More > 0 {
		said = append(said, fmt.Sprintf("the hook demands %d more approvals", w.More))
	}
	return said
}

// fullCard is what was verified, and then, marked as such, what the brokers alone say.
func (c *contact) fullCard(r reading, view api.RequestView) term.Card {
	card := r.card(c.pin, c.clock())
	if said := c.word(r, view).lines(); len(said) > 0 {
		card.Fields = append(card.Fields, term.Field{Label: "brokers", Lines: append([]string{"alone say, and nobody else can check:"}, said...)})
	}
	return card
}

// affordable holds a request to what is left of the role's budget, by the brokers' word: they count.
func (c *contact) affordable(ctx context.Context, body statement.Request) error {
	if c.chain.Current().Roles[body.Role].Budget == (policy.Budget{}) {
		return nil
	}
	budget, err := c.budgetOf(ctx, body.Role)
	if err != nil || budget == nil {
		return nil // brokers will say
	}
	left := max(0, budget.Time-budget.Used)
	if body.Duration <= left {
		return nil
	}
	if left == 0 {
		return denied("pim-ssh explain "+string(body.Role), "0s: what is left for %s of your budget of %s per %s; you asked %s", body.Role, span(budget.Time), span(budget.Per), span(body.Duration))
	}
	return denied(fmt.Sprintf("pim-ssh request %s@%s --for %s --why \"…\"", body.Role, joined(body.Hosts), span(left)),
		"%s: what is left for %s of your budget of %s per %s; you asked %s", span(left), body.Role, span(budget.Time), span(budget.Per), span(body.Duration))
}

// budgetOf is what the person has used of a role's budget; nil when it has none.
func (c *contact) budgetOf(ctx context.Context, role statement.RoleName) (*api.BudgetView, error) {
	client, err := c.as(ctx)
	if err != nil {
		return nil, err
	}
	views, err := client.Roles(ctx)
	for _, view := range views {
		if view.Role == role {
			return view.Budget, err
		}
	}
	return nil, err
}

// factorJSON is what `totp status -o json` prints.
type factorJSON struct {
	Person      statement.Person `json:"person"`
	Enrolled    bool             `json:"enrolled"`
	LockedUntil statement.Time   `json:"locked_until,omitzero"`
}

func (c *contact) factor(ctx context.Context) (api.FactorView, error) {
	client, err := c.as(ctx)
	if err != nil {
		return api.FactorView{}, err
	}
	known, err := client.Whoami(ctx)
	return known.Factor, err
}

func (c *contact) factorStatus(ctx context.Context) error {
	factor, err := c.factor(ctx)
	if err != nil {
		return err
	}
	if c.json() {
		return c.term.JSON(factorJSON{Person: c.person, Enrolled: factor.Enrolled, LockedUntil: factor.LockedUntil})
	}
	c.term.Result("%s", codes(factor, c.clock()))
	if !factor.Enrolled {
		c.term.Say("enrol with: pim-ssh totp enrol")
	}
	return nil
}

// codes says in words how a person's codes stand.
func codes(factor api.FactorView, now statement.Time) string {
	switch {
	case !factor.Enrolled:
		return "not enrolled"
	case factor.LockedUntil > now:
		return "enrolled, and locked until " + moment(factor.LockedUntil, now) + ": too many were wrong"
	}
	return "enrolled"
}

// reviewJSON and renewalJSON are what `inbox -o json` prints beside requests.
type reviewJSON struct {
	Review broker.GrantID     `json:"review"`
	Person statement.Person   `json:"person"`
	Role   statement.RoleName `json:"role"`
	At     statement.Time     `json:"at"`
	Reason string             `json:"reason"`
}

type renewalJSON struct {
	Renewal statement.RoleName `json:"renewal"`
	Person  statement.Person   `json:"person"`
	Until   statement.Time     `json:"until"`
	At      statement.Time     `json:"at"`
	Reason  string             `json:"reason"`
}

// theirWord marks what nothing signed was shown for.
const theirWord = " (by the brokers' word)"

// otherItems is what waits for the person beside requests.
func (c *contact) otherItems(ctx context.Context) ([]item, error) {
	client, err := c.as(ctx)
	if err != nil {
		return nil, err
	}
	now, doc := c.clock(), c.chain.Current()
	reviews, err := client.Reviews(ctx)
	if err != nil {
		return nil, err
	}
	var items []item
	for _, r := range reviews {
		if broker.MayReview(doc, r, c.person) {
			items = append(items, c.reviewItem(ctx, r, now))
		}
	}
	if !doc.Steward(c.person) {
		return items, nil
	}
	renewals, err := client.Renewals(ctx)
	for _, r := range renewals {
		items = append(items, item{
			key: fmt.Sprintf("renewal %s %s %d", r.Person, r.Role, r.Until), json: renewalJSON{r.Role, r.Person, r.Until, r.At, r.Reason},
			row:  []string{"renewal", string(r.Person), string(r.Role), "", "until " + r.Until.String(), roughly(now.Sub(r.At)) + " ago", r.Reason + theirWord},
			next: "answer a renewal with a revision of the policy: pim-ssh policy show -o yaml, then pim-ssh policy sign FILE",
		})
	}
	return items, err
}

// reviewItem tells of an emergency grant by its signed bytes, for as long as brokers hold them.
func (c *contact) reviewItem(ctx context.Context, r broker.Review, now statement.Time) item {
	hosts, why := "", r.Reason+theirWord
	if signed, _, err := c.requestByID(ctx, string(r.Grant)); err == nil {
		r.Person, r.Role, r.Reason = signed.request.Person, signed.request.Role, signed.request.Reason
		hosts, why = joined(signed.request.Hosts), r.Reason
	}
	return item{
		key: "review " + string(r.Grant), json: reviewJSON{r.Grant, r.Person, r.Role, r.At, r.Reason},
		row:  []string{short(r.Grant), string(r.Person), string(r.Role), hosts, "review", roughly(now.Sub(r.At)) + " ago", why},
		next: "see what was done, then: pim-ssh review ID --why …",
	}
}
