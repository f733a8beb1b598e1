package edge

import (
	"context"
	"net/http"
	"net/netip"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/edge/judge"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// question is what a statement needs judged by the broker that proposes it, as of one look at the state.
type question struct {
	person statement.Person
	role   policy.Role
	at     statement.Time // the moment that hours are held to: now, or when what is asked begins
	hook   judge.Evaluation
	code   string // to be checked against sealed; "" for none
	sealed []byte
	enrols *statement.Factor // the statement itself, when it brings a seed
}

// asks is what a statement needs judged; nil when it needs nothing. What somebody else signed, or another deployment's rules
// decide, needs nothing: it is refused untold.
func (s *Server) asks(state *broker.State, proof statement.Proof, body statement.Body, key statement.Key) *question {
	if state.Rules() < 3 || body == nil {
		return nil
	}
	person := body.Header().Person
	doc := state.Chain().Current()
	if !doc.HoldsKey(person, key) {
		return nil
	}
	q := &question{person: person, at: s.now(), hook: judge.Evaluation{Statement: proof, Person: person}}
	asked := statement.Request{}
	switch b := body.(type) {
	case statement.Request:
		asked, q.code = b, b.Code
	case statement.Decision:
		r, held := state.Request(broker.StemOf(b.Request).Request())
		if !held || b.Verdict != statement.Approve {
			return nil
		}
		asked, q.code, q.hook.Request = r.Body, b.Code, &r.Dossier.Request
	case statement.Factor:
		if b.Action != statement.EnrolFactor {
			return nil
		}
		q.enrols, q.code = &b, b.Code
	default:
		return nil
	}
	q.role, q.at = doc.Roles[asked.Role], max(q.at, asked.At)
	q.hook.Role, q.hook.Hosts = asked.Role, asked.Hosts
	q.seal(state, body, max(state.Now(), s.now()))
	return q
}

// seal finds the seed that the code is held to. While a person's codes are locked none is looked at; but a recovery code stands in
// the record in clear whatever is decided, and is looked at so that it is used up.
func (q *question) seal(state *broker.State, body statement.Body, now statement.Time) {
	sealed, locked := state.FactorOf(q.person)
	idle := q.enrols == nil && state.Demands(body) != policy.TOTP || now < locked
	if len(sealed) == 0 || idle && !statement.RecoveryCode(q.code) {
		q.code = ""
	}
	q.sealed = sealed
}

// judged answers the question, all of it but what a hook says.
func (s *Server) judged(q *question, source netip.Addr) (broker.Judged, error) {
	var j broker.Judged
	if source.IsValid() && (len(q.role.Networks) > 0 || q.role.Hook != nil) {
		j.Source = source.String()
	}
	if q.role.Hours != nil {
		j.Hours, j.Local = judge.Hours(*q.role.Hours, q.at)
	}
	var of *broker.CodeJudged
	if q.code != "" {
		var err error
		if of, err = judge.Code(q.sealed, s.identity, q.person, q.code, s.now()); err != nil {
			return broker.Judged{}, broker.Refuse(broker.Denied, "ask an operator: pim-ssh totp reset "+string(q.person)+"; then: pim-ssh totp enrol",
				"the broker that leads cannot check %s's codes: %w", q.person, err)
		}
	}
	if q.enrols == nil {
		j.Code = of
		return j, nil
	}
	if len(q.sealed) > 0 && (of == nil || !of.Right) {
		j.Old = of // whoever cannot prove the old seed learns nothing of any code of the new one, which may be a copy of the old
		return j, nil
	}
	first, err := judge.Code(q.enrols.Sealed, s.identity, q.person, q.enrols.First, s.now())
	if err != nil {
		return broker.Judged{}, broker.Refuse(broker.Denied, "pim-ssh totp enrol, with the newest policy", "the new seed must be for every broker of the policy: %w", err)
	}
	j.Code, j.Old = first, of
	return j, nil
}

// asksHook has the role's hook say its word on what everything else holds for.
func (s *Server) asksHook(ctx context.Context, q *question, command broker.Command) (*broker.HookVerdict, error) {
	if q.role.Hook == nil {
		return nil, nil
	}
	fine := false
	if err := s.cluster.View(ctx, func(state *broker.State) {
		try := command.Under(state)
		try.At, try.Judged.Hook = s.now(), &broker.HookVerdict{}
		decided, refused := broker.Foresee(state, try)
		fine = refused == nil && len(decided.Events) > 0
	}); err != nil || !fine {
		return nil, err
	}
	q.hook.Source = command.Judged.Source
	verdict, err := s.hooks.Ask(ctx, *q.role.Hook, q.hook)
	if verdict == nil {
		return nil, err
	}
	if err != nil {
		s.log.Warn("HOOK: no answer that counts, so it refuses", "role", q.hook.Role, "person", q.person, "evaluation", verdict.Evaluation, "error", err)
	}
	return verdict, nil
}

// stamp has everything judged that a statement needs.
func (s *Server) stamp(ctx context.Context, q *question, command broker.Command, source netip.Addr) (broker.Command, error) {
	if q == nil {
		return command, nil
	}
	var err error
	if command.Judged, err = s.judged(q, source); err == nil {
		command.Judged.Hook, err = s.asksHook(ctx, q, command)
	}
	return command, err
}

// source is the address that a statement came from: this connection's, or what another broker says of the one that it passes on.
// Nobody else is believed.
func (s *Server) source(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	if r.Header.Get(api.HeaderPassed) == "" || s.aPeer(r) != nil {
		return at.Addr().Unmap().WithZone("")
	}
	said := r.Header.Values(api.HeaderSource)
	if len(said) != 1 {
		return netip.Addr{}
	}
	of, err := netip.ParseAddr(said[0])
	if err != nil || of.Zone() != "" {
		return netip.Addr{}
	}
	return of.Unmap()
}
