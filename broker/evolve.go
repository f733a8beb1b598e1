package broker

import (
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Evolve applies one event. It cannot fail and is the only thing that changes a state: what Decide yields is applied in
// order, and the same events give the same state everywhere.
func Evolve(s *State, e Event) {
	head := e.Head()
	s.index = head.Index + 1
	s.now = max(s.now, head.At)
	if _, begins := e.(*EpochBegun); begins {
		s.now = head.At
	}
	s.apply(e)
	if p, carries := Carried(e); carries {
		s.remember(p.Hash(), e)
	}
	if s.now > s.sweepAt {
		s.sweep()
	}
}

func (s *State) apply(e Event) {
	switch e := e.(type) {
	case *PolicyAdopted:
		s.adopt(e)
	case *PolicyForked:
		s.forked = e.Revision
	case *HostEnrolled:
		s.enrol(e)
	case *HostReported:
		s.report(e)
	case *RequestFiled:
		s.file(e)
	case *DecisionFiled:
		s.change(e.Request.Stem(), func(r *Request) {
			r.decided = append(slices.Clip(r.decided), decidedBy(e.Proof))
			r.Dossier.Decisions = append(slices.Clip(r.Dossier.Decisions), e.Proof)
			r.More = max(r.More, e.Judged.more())
		})
		s.judge(e.Person, e.Judged.Code)
	case *RequestApproved:
		s.settle(e.Request, StateApproved, "")
	case *RequestDenied:
		s.settle(e.Request, StateDenied, "")
	case *RequestExpired:
		s.settle(e.Request, StateExpired, "")
	case *RequestWithdrawn:
		s.settle(e.Request, StateWithdrawn, e.Person)
	case *BrokerAdded:
		s.admit(e)
	case *BrokerRemoved:
		s.expel(Removal{Name: e.Broker, Disk: e.Disk, By: e.Person, At: e.At, Index: e.Index})
	case *RulesRaised:
		s.cluster.Rules = e.Rules
	case *EpochBegun:
		s.begin(e)
	case *StatementRefused:
		s.refused(e)
	default:
		s.applyGrant(e)
	}
}

func (s *State) applyGrant(e Event) {
	switch e := e.(type) {
	case *GrantOpened:
		s.settle(e.Grant.Stem.Request(), StateApproved, "")
		s.change(e.Grant.Stem, func(r *Request) { r.Grant, r.Waiting = &e.Grant, s.Rules() > 2 && e.Grant.From > s.now })
		s.spend(e.Grant)
		s.demandReview(e.Grant)
		if first, ok := s.seen[e.By]; ok {
			opened := *first
			opened.Outcome.Grant = e.Grant.ID
			s.keep(&opened)
		}
	case *GrantReturned:
		s.end(e.Grant, EndedByReturn, e.Person)
	case *GrantRevoked:
		s.end(e.Grant, EndedByRevoke, e.Person)
	case *GrantLapsed:
		s.change(e.Grant.Stem(), s.close)
	case *CertificateIssued:
		s.certify(e)
	case *GrantStarted:
		s.change(e.Grant.Stem(), func(r *Request) { r.Waiting = false })
	case *GrantReviewed:
		delete(s.reviews, e.Grant)
	case *RenewalAsked:
		s.renewals[spender{e.Person, e.Role}] = Renewal{e.Person, e.Role, e.Until, e.At, bodyOf[statement.Renewal](e.Proof).Reason}
	case *FactorEnrolled:
		s.enrolFactor(e)
	case *FactorReset:
		s.resetFactor(e)
	}
}

// refused remembers what a refused statement showed of its signer's second factor.
func (s *State) refused(e *StatementRefused) {
	if e.Statement == statement.KindFactor {
		s.judge(e.Person, e.Judged.Old)
		return
	}
	s.judge(e.Person, e.Judged.Code)
}

// demandReview keeps an emergency grant until somebody has looked at it.
func (s *State) demandReview(g Grant) {
	if s.chain.Current().Roles[g.Role].Emergency {
		s.reviews[g.ID] = Review{g.ID, g.Person, g.Role, s.now, s.requests[g.Stem].Body.Reason}
	}
}

// change replaces a request by a changed copy, so that copies handed to readers stay as they were.
func (s *State) change(stem Stem, with func(*Request)) {
	old, ok := s.requests[stem]
	if !ok {
		return
	}
	r := *old
	with(&r)
	s.hold(&r)
}

// hold puts a request, complete and from now on unchanged, in its place.
func (s *State) hold(r *Request) {
	r.sum = hashOf(r)
	s.requests[r.ID.Stem()] = r
	if r.ClosedAt != 0 {
		return
	}
	if _, counted := s.open[r.ID.Stem()]; !counted {
		s.openBy[r.Body.Person]++
	}
	s.open[r.ID.Stem()] = r.due()
}

// close marks that nothing more can happen to a request or its grant.
func (s *State) close(r *Request) {
	r.ClosedAt = s.now
	if _, counted := s.open[r.ID.Stem()]; counted {
		delete(s.open, r.ID.Stem())
		if s.openBy[r.Body.Person]--; s.openBy[r.Body.Person] == 0 {
			delete(s.openBy, r.Body.Person)
		}
	}
	s.sweepAt = min(s.sweepAt, r.dropAt())
}

// settle takes a request out of pending.
func (s *State) settle(id RequestID, state RequestState, by statement.Person) {
	s.change(id.Stem(), func(r *Request) {
		s.unlist(r)
		r.State, r.EndedBy = state, by
		if state == StateWithdrawn {
			r.Dossier.Ended = &Ended{How: EndedByWithdraw, At: s.now}
		}
		if state != StateApproved {
			s.close(r)
		}
	})
}

// unlist forgets a wish, unless a later request has taken its place.
func (s *State) unlist(r *Request) {
	if wished := wishOf(r.Body); s.wishes[wished] == r.ID.Stem() {
		delete(s.wishes, wished)
	}
}

func (s *State) end(id GrantID, how EndedHow, by statement.Person) {
	s.change(id.Stem(), func(r *Request) {
		ended := &Ended{How: how, At: s.now}
		r.Dossier.Ended, r.EndedBy = ended, by
		if r.Grant != nil {
			g := *r.Grant
			g.Ended = ended
			r.Grant = &g
			s.unspend(&g)
		}
		s.close(r)
	})
}

func (s *State) certify(e *CertificateIssued) {
	s.change(e.Grant.Stem(), func(r *Request) {
		r.Issued = append(slices.Clip(r.Issued), Issued{Key: e.Key, Serial: e.Index})
		if e.Proof == nil {
			return
		}
		r.Dossier.Certificates = append(slices.Clip(r.Dossier.Certificates), *e.Proof)
		s.refresh(r)
	})
}

// refresh computes a live grant again from its dossier. Its end never moves away.
func (s *State) refresh(r *Request) {
	g, err := Prove(s.chain, r.Dossier)
	if err != nil || r.Grant == nil {
		return
	}
	g.Until = min(g.Until, r.Grant.Until)
	r.Grant = &g
}

func (s *State) file(e *RequestFiled) {
	s.list(&Request{ID: e.Request, Index: e.Index, FiledAt: e.At, State: StatePending, Dossier: Dossier{Request: e.Proof}, More: e.Judged.more(), Coded: s.chain.Current().Roles[e.Role].Factors.Ask == policy.TOTP})
	s.judge(e.Person, e.Judged.Code)
}

// list takes a request in, and derives from it what is not encoded.
func (s *State) list(r *Request) {
	r.Body = bodyOf[statement.Request](r.Dossier.Request)
	r.decided = nil
	for _, p := range r.Dossier.Decisions {
		r.decided = append(r.decided, decidedBy(p))
	}
	s.hold(r)
	for _, host := range r.Body.Hosts {
		s.reach[host] = append(s.reach[host], r.ID.Stem())
	}
	if r.ClosedAt != 0 {
		s.sweepAt = min(s.sweepAt, r.dropAt())
		return
	}
	if r.State == StatePending {
		s.wishes[wishOf(r.Body)] = r.ID.Stem()
	}
}

func (s *State) adopt(e *PolicyAdopted) {
	next, err := advance(s.chain, e.Proof)
	if err != nil {
		return // not a policy that Decide adopted: the old one stays in force
	}
	before := s.chain.Current()
	s.chain, s.forked = next, 0
	s.adopted = append(s.adopted, e.Index)
	if e.Index == 0 {
		s.cluster.Rules, s.cluster.Founding = e.Rules, e.Founding
	}
	s.dropUnlisted(before.Brokers, e)
	s.settleRenewals()
	for stem := range s.open {
		if s.requests[stem].live(s.now) {
			s.change(stem, s.refresh)
		}
	}
}

func (s *State) enrol(e *HostEnrolled) {
	s.register(&Enrolled{Name: e.Host, Index: e.Index, At: e.At, Enrolment: e.Proof})
}

// register takes a host in, and derives from it what is not encoded.
func (s *State) register(h *Enrolled) {
	enrolment := bodyOf[statement.Enrolment](h.Enrolment)
	token := bodyOf[statement.HostToken](enrolment.Token)
	h.Labels, h.Addresses, h.Token = token.Labels, token.Addresses, enrolment.Token.Hash()
	h.Identity, h.HostKeys, h.MachineID = enrolment.Identity, enrolment.HostKeys, enrolment.MachineID
	s.tokens[h.Token], s.identities[h.Identity] = h.Name, h.Name
	h.sum = hashOf(h)
	s.hosts[h.Name] = h
}

func (s *State) report(e *HostReported) {
	old, ok := s.hosts[e.Host]
	if !ok {
		return
	}
	h := *old
	h.Sequence = bodyOf[statement.Report](e.Proof).Sequence
	h.Reported, h.Last, h.SeenAt = e.Index, e.Proof.Hash(), e.At
	h.sum = hashOf(h)
	s.hosts[e.Host] = &h
}

// remember keeps a statement's first outcome. Hosts remember their own statements.
func (s *State) remember(hash statement.Hash, e Event) {
	switch e.(type) {
	case *HostReported, *HostEnrolled, *PolicyAdopted:
		return
	}
	first := &seen{Hash: hash, At: s.now, Outcome: outcomeOf(hash, []Event{e})}
	if r, ok := e.(*StatementRefused); ok {
		first.Refused = &refused{Kind: r.Error, Msg: r.Why, Hint: r.Hint}
	}
	s.keep(first)
}

// keep puts a first outcome, complete and from now on unchanged, in its place.
func (s *State) keep(first *seen) {
	first.sum = hashOf(first)
	s.seen[first.Hash] = first
	s.sweepAt = min(s.sweepAt, first.dropAt())
}

func (f *seen) dropAt() statement.Time { return f.At.Add(Keep) }

func (r *Request) dropAt() statement.Time { return max(r.ClosedAt, r.end()).Add(Keep) }

// sweep drops what has been over for long enough, and finds out when the next entry is due.
func (s *State) sweep() {
	s.sweepAt = never
	for hash, f := range s.seen {
		if s.now > f.dropAt() {
			delete(s.seen, hash)
			continue
		}
		s.sweepAt = min(s.sweepAt, f.dropAt())
	}
	for _, r := range s.requests {
		if r.ClosedAt == 0 {
			continue
		}
		if s.now > r.dropAt() {
			s.forget(r)
			continue
		}
		s.sweepAt = min(s.sweepAt, r.dropAt())
	}
}

// forget drops a request.
func (s *State) forget(r *Request) {
	delete(s.requests, r.ID.Stem())
	for _, host := range r.Body.Hosts {
		left := slices.DeleteFunc(s.reach[host], func(stem Stem) bool { return stem == r.ID.Stem() })
		if s.reach[host] = left; len(left) == 0 {
			delete(s.reach, host)
		}
	}
}

// outcomeOf folds the events that one statement became into its outcome.
func outcomeOf(hash statement.Hash, events []Event) Outcome {
	var out Outcome
	for i, e := range events {
		if i == 0 {
			out.Index = e.Head().Index
		}
		switch e := e.(type) {
		case *RequestFiled:
			out.Request = e.Request
		case *DecisionFiled:
			out.Request = e.Request
		case *RequestWithdrawn:
			out.Request = e.Request
		case *GrantReturned:
			out.Request, out.Grant = e.Grant.Stem().Request(), e.Grant
		case *GrantRevoked:
			if e.Proof != nil {
				out.Request, out.Grant = e.Grant.Stem().Request(), e.Grant
			}
		case *CertificateIssued:
			if e.Proof != nil {
				out.Request, out.Grant = e.Grant.Stem().Request(), e.Grant
			}
		case *GrantOpened:
			if e.By == hash && out.Request == e.Grant.Stem.Request() {
				out.Grant = e.Grant.ID
			}
		}
	}
	return out
}

// bodyOf reads a payload whose signatures Decide has verified; what is no such body gives the zero body.
func bodyOf[B statement.Body](p statement.Proof) B {
	var b B
	if err := statement.DecodeStrict(p.Payload, &b); err != nil {
		var none B
		return none
	}
	return b
}
