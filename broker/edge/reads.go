package edge

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// asking is a person's read, answered from one view of the state.
type asking struct {
	state   *broker.State
	doc     *policy.Document
	now     statement.Time
	person  statement.Person
	request *http.Request
}

// read makes a handler of a function that answers an authenticated person from the state.
func (s *Server) read(answer func(asking) (any, error)) handler {
	return func(_ http.ResponseWriter, r *http.Request) (any, error) {
		shown, err := s.evidence(r)
		if err != nil {
			return nil, err
		}
		var body any
		err = s.view(r.Context(), func(state *broker.State) error {
			now := s.now()
			person, err := shown.person(state.Chain(), now, now)
			if err == nil {
				body, err = answer(asking{state, state.Chain().Current(), now, person, r})
			}
			return err
		})
		return body, err
	}
}

// policy answers anyone: the chain is signed.
func (s *Server) policy(w http.ResponseWriter, r *http.Request) (any, error) {
	after, given, err := number(r, "after")
	if err != nil {
		return nil, err
	}
	if !given {
		after = 0
	}
	var proofs []statement.Proof
	if err := s.cluster.View(r.Context(), func(state *broker.State) { proofs = state.Chain().Proofs() }); err != nil {
		return nil, err
	}
	s.note(r, s.writePolicies(w, proofs[min(after, uint64(len(proofs))):]))
	return nil, nil
}

// writePolicies writes api.Policies one revision at a time: strangers may ask for all there ever were, and read slowly.
func (s *Server) writePolicies(w http.ResponseWriter, proofs []statement.Proof) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	before := `{"policies":[`
	for _, proof := range proofs {
		encoded, err := s.spelled.policy(proof)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, before); err != nil {
			return err
		}
		if _, err := w.Write(encoded); err != nil {
			return err
		}
		before = ","
	}
	if len(proofs) > 0 {
		before = ""
	}
	_, err := w.Write([]byte(before + "]}\n"))
	return err
}

// number reads a decimal query parameter in its one spelling, and whether it was given.
func number(r *http.Request, name string) (uint64, bool, error) {
	query := r.URL.Query()
	if !query.Has(name) {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(query.Get(name), 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != query.Get(name) {
		return 0, false, broker.Refuse(broker.Invalid, "", "%s: want a plain number", name)
	}
	return n, true, nil
}

func whoami(a asking) (any, error) {
	entry := a.doc.People[a.person]
	who := api.Whoami{
		Person: a.person, Account: entry.Account, Deployment: a.state.Chain().Deployment(), Policy: a.state.Chain().Ref(),
		Steward: a.doc.Steward(a.person), Operator: a.doc.Operator(a.person), Auditor: a.doc.Auditor(a.person), Keys: entry.Keys,
	}
	sealed, locked := a.state.FactorOf(a.person)
	who.Factor.Enrolled = len(sealed) > 0
	if a.now < locked {
		who.Factor.LockedUntil = locked
	}
	for _, role := range slices.Sorted(maps.Keys(a.doc.Roles)) {
		if a.doc.Eligible(a.person, role) {
			who.Eligible = append(who.Eligible, role)
		}
	}
	return who, nil
}

func roles(a asking) (any, error) {
	answer := api.Roles{}
	enrolled := a.state.Hosts()
	for _, name := range slices.Sorted(maps.Keys(a.doc.Roles)) {
		role := a.doc.Roles[name]
		view := api.RoleView{
			Role: name, Accounts: role.Accounts, Sudo: role.Sudo, Longest: role.Longest, Default: role.Default,
			Eligible: a.doc.Eligible(a.person, name),
		}
		a.limits(&view, role)
		if parts := role.Parts(); len(parts) > 0 {
			view.Approvals = parts[0].Count
			view.Approvers = slices.DeleteFunc(a.doc.Approvers(name), func(p statement.Person) bool { return p == a.person })
		}
		for _, host := range enrolled {
			if role.Hosts.Selects(host.Name, host.Labels) {
				view.Hosts = append(view.Hosts, host.Name)
			}
		}
		answer.Roles = append(answer.Roles, view)
	}
	return answer, nil
}

// limits says what policies of version 2 brought.
func (a asking) limits(view *api.RoleView, role policy.Role) {
	if parts := role.Parts(); len(parts) > 1 {
		view.Parts = parts
	}
	view.Fallback, view.Factors, view.ReasonLeast, view.ApproverReason, view.Ticket = role.Fallback, role.Factors, role.ReasonLeast, role.ApproverReason, role.Ticket
	view.Emergency, view.PlainKey, view.Hours, view.Networks, view.Hook = role.Emergency, role.PlainKey, role.Hours, role.Networks, role.Hook != nil
	view.Budget = a.budget(a.person, view.Role)
	view.EligibleUntil = broker.EligibleUntil(a.doc, a.person, view.Role)
}

// hosts lists the enrolled hosts. Last seen is the later of the last report in the log and what this broker saw itself.
func (s *Server) hosts(a asking) (any, error) {
	answer := api.Hosts{}
	for _, host := range a.state.Hosts() {
		answer.Hosts = append(answer.Hosts, api.HostView{
			Name: host.Name, Labels: host.Labels, Addresses: host.Addresses, Enrolment: host.Enrolment, EnrolledAt: host.At, LastSeen: max(host.SeenAt, s.seen.of(host.Name)),
		})
	}
	return answer, nil
}
