package rehearse

import (
	"fmt"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/edge/judge"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/policy/policyfile"
	"pim-ssh/broker/statement"
)

// Played is one scenario and what came of it.
type Played struct {
	policyfile.Scenario
	Got     policyfile.Ending
	Opens   statement.Time // of a grant: its window, [Opens, Closes), the shortest on any of its hosts
	Closes  statement.Time
	Said    string   // why it is refused or pending, and which approvals did not count
	Untried []string // conditions of the role that the scenario says nothing about
}

// Right reports whether what came of it is what the scenario says.
func (p Played) Right() bool { return len(p.Wrong()) == 0 }

// Difference is one thing that came out another way.
type Difference struct {
	Field string `json:"field"` // then, until or because
	Want  string `json:"want"`
	Got   string `json:"got"`
}

// Wrong returns what came out another way.
func (p Played) Wrong() []Difference {
	var wrong []Difference
	if p.Got != p.Then {
		wrong = append(wrong, Difference{"then", string(p.Then), string(p.Got)})
	}
	if p.Until != 0 && p.Closes != p.Until {
		wrong = append(wrong, Difference{"until", p.Until.String(), p.Closes.String()})
	}
	if !strings.Contains(p.Said, p.Because) {
		wrong = append(wrong, Difference{"because", p.Because, p.Said})
	}
	return wrong
}

// Play plays every scenario by itself under a policy that passes its Check, in the order of the file.
func Play(doc policy.Document, file policyfile.Scenarios) ([]Played, error) {
	st, err := newStage(doc, file)
	if err != nil {
		return nil, err
	}
	var played []Played
	for _, s := range file.List {
		played = append(played, st.play(s))
	}
	return played, nil
}

func (st *stage) play(s policyfile.Scenario) Played {
	p, state, role := Played{Scenario: s, Untried: st.untried(s)}, st.state(), st.doc.Roles[s.Role]
	proof, err := st.request(s, role)
	if err != nil { // pim-ssh request would not sign it either
		p.Got, p.Said = policyfile.Refused, err.Error()
		return p
	}
	if err := take(state, proof, s.At, st.judged(role, s.From.String(), s.From.IsValid(), max(s.At, s.Starts))); err != nil {
		p.Got, p.Said = policyfile.Refused, err.Error()
		return p
	}
	now, id := s.At, broker.StemOf(proof.Hash()).Request()
	var ignored []string
	for _, a := range s.Approved {
		if r, _ := state.Request(id); r.StateAt(s.At.Add(a.After)) != broker.StatePending {
			ignored = append(ignored, fmt.Sprintf("%s's approval: it is %s by then", a.Person, r.StateAt(s.At.Add(a.After))))
			continue
		}
		now = s.At.Add(a.After)
		tick(state, now)
		decision, err := st.decision(s, a, proof, now)
		if err == nil {
			err = take(state, decision, now, st.judged(role, a.From.String(), a.From.IsValid(), max(now, s.Starts)))
		}
		if err != nil {
			ignored = append(ignored, fmt.Sprintf("%s's approval: %v", a.Person, err))
		}
	}
	tick(state, max(now, s.Starts))
	r, _ := state.Request(id)
	st.ended(&p, state, r, now)
	p.Said = strings.Join(append(nonempty(p.Said), ignored...), "; ")
	return p
}

func nonempty(said string) []string {
	if said == "" {
		return nil
	}
	return []string{said}
}

// tick lets time pass: what expired is closed, and what was to start later is judged again.
func tick(state *broker.State, at statement.Time) {
	_, _ = evolve(state, broker.TickAt(at, nil)) // a tick without a digest is never refused
}

// ended says what became of the request: a grant is one only where every one of its hosts would let it in.
func (st *stage) ended(p *Played, state *broker.State, r broker.Request, now statement.Time) {
	switch {
	case r.Grant == nil && r.StateAt(now) == broker.StatePending:
		p.Got, p.Said = policyfile.Pending, "waits for "+needs(state.Needs(r.ID, now))
		return
	case r.Grant == nil:
		p.Got, p.Said = policyfile.Refused, "the request is "+string(r.StateAt(now))
		return
	case r.Grant.Ended != nil:
		_, err := broker.Prove(st.chain, broker.Dossier{Request: r.Dossier.Request, Decisions: r.Dossier.Decisions})
		p.Got, p.Said = policyfile.Refused, fmt.Sprintf("the grant was ended at %s: %v", r.Grant.Ended.At, err)
		return
	}
	p.Got, p.Opens, p.Closes = policyfile.Granted, r.Grant.From, r.Grant.Until
	for _, host := range r.Grant.Hosts {
		g, err := broker.Judge(st.chain, r.Dossier, broker.Host{Name: host, Labels: st.file.Hosts[host]}, r.Grant.From)
		if err != nil {
			p.Got, p.Opens, p.Closes, p.Said = policyfile.Refused, 0, 0, fmt.Sprintf("%s refuses: %v", host, err)
			return
		}
		p.Closes = min(p.Closes, g.Until)
	}
}

func needs(all []broker.Need) string {
	var words []string
	for _, n := range all {
		words = append(words, n.String())
	}
	return strings.Join(words, " and ")
}

// judged is what the broker that proposes would find out: all is well with what the scenario says nothing about.
func (st *stage) judged(role policy.Role, from string, given bool, at statement.Time) broker.Judged {
	j := broker.Judged{Hours: true}
	if role.Hours != nil {
		j.Hours, j.Local = judge.Hours(*role.Hours, at)
	}
	switch {
	case given:
		j.Source = from
	case len(role.Networks) > 0:
		j.Source, _, _ = strings.Cut(role.Networks[0], "/")
	}
	return j
}

// untried names what the role demands and the scenario says nothing about.
func (st *stage) untried(s policyfile.Scenario) []string {
	role := st.doc.Roles[s.Role]
	var words []string
	if role.Factors.Ask == policy.TOTP || role.Factors.Approve == policy.TOTP {
		words = append(words, "totp codes")
	}
	if role.Hook != nil {
		words = append(words, "the hook")
	}
	if role.Budget != (policy.Budget{}) {
		words = append(words, "budget already spent")
	}
	if len(role.Networks) > 0 && !s.From.IsValid() {
		words = append(words, "networks, for want of a from:")
	}
	return words
}

func (st *stage) request(s policyfile.Scenario, role policy.Role) (statement.Proof, error) {
	r := statement.Request{Head: st.head(statement.KindRequest, s.At), Role: s.Role, Hosts: s.Hosts, Duration: s.For, Reason: s.Reason,
		Ticket: s.Ticket, At: s.Starts, Expires: s.At.Add(role.Pending)}
	r.Person = s.Person
	if r.Duration == 0 {
		r.Duration = role.Default
	}
	if r.Reason == "" {
		r.Reason = strings.Repeat("scenario", 1+role.ReasonLeast/8)
	}
	return statement.Sign(r, st.signer(s.Person, s.Key))
}

func (st *stage) decision(s policyfile.Scenario, a policyfile.Approved, request statement.Proof, at statement.Time) (statement.Proof, error) {
	d := statement.Decision{Head: st.head(statement.KindDecision, at), Request: request.Hash(), Verdict: statement.Approve, Reason: a.Why,
		Hosts: a.Hosts, Duration: a.For}
	d.Person, d.NotAfter = a.Person, max(d.NotAfter, s.At.Add(st.doc.Roles[s.Role].Pending))
	return statement.Sign(d, st.signer(a.Person, a.Key))
}
