package main

import (
	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// requestJSON is a request as -o json prints it (DESIGN §9), from verified bytes.
type requestJSON struct {
	ID        broker.RequestID     `json:"id"`
	Role      statement.RoleName   `json:"role"`
	Scope     []statement.HostName `json:"scope"`
	Person    statement.Person     `json:"person"`
	State     api.State            `json:"state"`
	Reason    string               `json:"reason"`
	Ticket    string               `json:"ticket"`
	Duration  statement.Seconds    `json:"duration"`
	FiledAt   statement.Time       `json:"filed_at"`
	ExpiresAt statement.Time       `json:"expires_at"`
	Needs     []broker.Need        `json:"needs"`
	Decisions []api.DecisionView   `json:"decisions"`
	Grant     *broker.GrantID      `json:"grant"` // null until approved

	At      statement.Time `json:"at,omitzero"`          // it starts then; none: at once
	Extends broker.GrantID `json:"extends,omitzero"`     // whose sessions go on under its grant
	Factor  factorWord     `json:"factor,omitzero"`      // what its signature shows beside the key
	Brokers *wordJSON      `json:"brokers_say,omitzero"` // with show: what only they know, and nobody else can check
}

// factorWord is a second factor that a signature shows.
type factorWord string

// grantJSON is a grant as -o json prints it (DESIGN §9), computed here from verified bytes.
type grantJSON struct {
	ID       broker.GrantID       `json:"id"`
	Request  broker.RequestID     `json:"request"`
	Person   statement.Person     `json:"person"`
	Role     statement.RoleName   `json:"role"`
	Hosts    []statement.HostName `json:"hosts"`
	Accounts []statement.Account  `json:"accounts"`
	From     statement.Time       `json:"from"`
	Until    statement.Time       `json:"until"`
	Phase    broker.Phase         `json:"phase"`
	EndedBy  statement.Person     `json:"ended_by"` // "" when nobody did, or it is not known
}

func (r reading) asJSON(now statement.Time) requestJSON {
	out := requestJSON{
		ID: r.id(), Role: r.request.Role, Scope: r.request.Hosts, Person: r.request.Person, State: r.state(now),
		Reason: r.request.Reason, Ticket: r.request.Ticket, Duration: r.request.Duration,
		FiledAt: r.request.Created, ExpiresAt: r.request.Expires, Needs: r.needs,
		At: r.request.At, Extends: broker.GrantID(r.request.Extends),
	}
	if r.signer.Verified {
		out.Factor = factorWord(policy.SecurityKey)
	}
	for _, d := range r.decisions {
		out.Decisions = append(out.Decisions, api.DecisionView{Person: d.Person, Verdict: d.Verdict, Reason: d.Reason, At: d.Created})
	}
	if r.grant != nil {
		out.Grant = &r.grant.ID
	}
	return out
}

func (r reading) grantAsJSON(now statement.Time, endedBy statement.Person) grantJSON {
	g := r.grant
	return grantJSON{
		ID: g.ID, Request: r.id(), Person: g.Person, Role: g.Role, Hosts: g.Hosts, Accounts: g.Accounts,
		From: g.From, Until: g.Until, Phase: g.Phase(now), EndedBy: endedBy,
	}
}
