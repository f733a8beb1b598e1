package edge

import (
	"net/http"
	"slices"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// sees reports whether a request and its grant concern the caller.
func (a asking) sees(r broker.Request) bool { return broker.Concerns(a.doc, r.Body, a.person) }

// seen returns the requests that concern the caller and that keep holds for, newest first.
func (a asking) seen(keep func(broker.Request) bool) []broker.Request {
	found := slices.DeleteFunc(a.state.Requests(), func(r broker.Request) bool { return !a.sees(r) || !keep(r) })
	slices.Reverse(found)
	return found
}

// all reports whether what is over is asked for too.
func (a asking) all() (bool, error) {
	switch said := a.request.URL.Query().Get("all"); said {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, broker.Refuse(broker.Invalid, "", "all=%.20q: want true or false", said)
	}
}

// find returns the one request whose id starts with the path's id and that concerns the caller. What does not concern
// the caller is missing: nobody learns that it exists.
func (a asking) find(what string, find func(string) (broker.Request, error), grant bool) (broker.Request, error) {
	typed := a.request.PathValue("id")
	missing := broker.Refuse(broker.Missing, "pim-ssh status", "no %s %.40s", what, typed)
	r, err := find(typed)
	switch {
	case err == nil && a.sees(r):
		return r, nil
	case err == nil:
		return broker.Request{}, missing
	case broker.KindOf(err) != broker.Conflict:
		return broker.Request{}, err
	}
	stem := strings.TrimPrefix(strings.TrimPrefix(typed, "r-"), "g-")
	found := a.seen(func(r broker.Request) bool {
		return strings.HasPrefix(string(r.ID.Stem()), stem) && (!grant || r.Grant != nil)
	})
	switch len(found) {
	case 0:
		return broker.Request{}, missing
	case 1:
		return found[0], nil
	default:
		return broker.Request{}, broker.Refuse(broker.Conflict, "type more of the id", "%s %.40s could be %s or %s", what, typed, found[0].ID, found[1].ID)
	}
}

func requests(a asking) ([]broker.Request, error) {
	all, err := a.all()
	if err != nil {
		return nil, err
	}
	return a.seen(func(r broker.Request) bool { return all || r.StateAt(a.now) == broker.StatePending }), nil
}

func inbox(a asking) ([]broker.Request, error) {
	found := a.state.Inbox(a.person, a.now)
	slices.Reverse(found)
	return found, nil
}

// requests makes a handler of a function that finds requests. What the log knows of them beside the state is looked up once
// the state is let go.
func (s *Server) requests(find func(asking) ([]broker.Request, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		var found []broker.Request
		answer := api.Requests{}
		_, err := s.read(func(a asking) (any, error) {
			var err error
			if found, err = find(a); err != nil {
				return nil, err
			}
			for _, one := range found {
				answer.Requests = append(answer.Requests, a.requestView(one))
			}
			return nil, nil
		})(w, r)
		if err != nil {
			return nil, err
		}
		s.habits.learn(r.Context(), s.cluster.Events)
		for i, one := range found {
			s.recollect(&answer.Requests[i], one)
		}
		return answer, nil
	}
}

// request answers with one request.
func (s *Server) request(w http.ResponseWriter, r *http.Request) (any, error) {
	one := s.requests(func(a asking) ([]broker.Request, error) {
		found, err := a.find("request", a.state.FindRequest, false)
		return []broker.Request{found}, err
	})
	answer, err := one(w, r)
	if err != nil {
		return nil, err
	}
	return answer.(api.Requests).Requests[0], nil
}

func reviews(a asking) (any, error) {
	open := slices.DeleteFunc(a.state.Reviews(), func(r broker.Review) bool {
		return !a.doc.Auditor(a.person) && !broker.MayReview(a.doc, r, a.person)
	})
	return api.Reviews{Reviews: open}, nil
}

func renewals(a asking) (any, error) {
	open := slices.DeleteFunc(a.state.Renewals(), func(r broker.Renewal) bool {
		return !a.doc.Steward(a.person) && r.Person != a.person
	})
	return api.Renewals{Renewals: open}, nil
}

func (a asking) requestView(r broker.Request) api.RequestView {
	view := api.RequestView{
		ID: r.ID, Role: r.Body.Role, Scope: r.Body.Hosts, Person: r.Body.Person, State: r.StateAt(a.now), Reason: r.Body.Reason,
		Ticket: r.Body.Ticket, Duration: r.Body.Duration, FiledAt: r.FiledAt, ExpiresAt: r.Body.Expires,
		Decisions: decisions(r.Dossier), Dossier: r.Dossier, More: r.More, Budget: a.budget(r.Body.Person, r.Body.Role),
	}
	if view.State == broker.StatePending {
		view.Needs = a.state.Needs(r.ID, a.now)
	}
	if r.Grant != nil {
		view.Grant = &r.Grant.ID
	}
	return view
}

// budget is what a person has used of a role; nil of one that has no budget.
func (a asking) budget(person statement.Person, name statement.RoleName) *api.BudgetView {
	b := a.doc.Roles[name].Budget
	if b == (policy.Budget{}) {
		return nil
	}
	return &api.BudgetView{Time: b.Time, Per: b.Per, Used: a.state.Used(person, name, b.Per, a.now)}
}

// decisions reads the dossier's decisions for display. Their signatures held when they were filed: verifying them again for
// every reader would hold up the cluster.
func decisions(d broker.Dossier) []api.DecisionView {
	var views []api.DecisionView
	for _, proof := range d.Decisions {
		var said statement.Decision
		if err := statement.DecodeStrict(proof.Payload, &said); err != nil {
			continue
		}
		views = append(views, api.DecisionView{Person: said.Person, Verdict: said.Verdict, Reason: said.Reason, At: said.Created})
	}
	return views
}

func grants(a asking) (any, error) {
	all, err := a.all()
	if err != nil {
		return nil, err
	}
	answer := api.Grants{}
	for _, r := range a.seen(func(r broker.Request) bool { return r.Grant != nil && (all || live(*r.Grant, a.now)) }) {
		answer.Grants = append(answer.Grants, a.grantView(r))
	}
	return answer, nil
}

// live reports whether a grant opens something now or later.
func live(g broker.Grant, now statement.Time) bool {
	phase := g.Phase(now)
	return phase == broker.PhaseWaiting || phase == broker.PhaseActive
}

func (a asking) grantView(r broker.Request) api.GrantView {
	g := r.Grant
	return api.GrantView{
		ID: g.ID, Request: r.ID, Person: g.Person, Role: g.Role, Hosts: g.Hosts, Accounts: g.Accounts, From: g.From, Until: g.Until,
		Phase: g.Phase(a.now), EndedBy: r.EndedBy, Dossier: r.Dossier,
	}
}
