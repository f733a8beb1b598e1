package main

import (
	"fmt"
	"slices"
	"strings"

	"pim-ssh/broker"
	"pim-ssh/broker/api"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// reading is what a dossier says when this program reads it itself: signed bytes, verified against the pinned chain. A
// person who decides sees nothing else.
type reading struct {
	dossier   broker.Dossier
	request   statement.Request
	hash      statement.Hash // of the request's payload: what a decision names
	signer    statement.Signer
	at        statement.Time // when it was read: what is missing depends on it
	decisions []decided
	needs     []broker.Need
	grant     *broker.Grant // nil while it is none
	why       error         // why it is none, when not for want of approvals
}

// decided is one decision on the request, signed by one of its person's keys.
type decided struct {
	statement.Decision
	signer  statement.Signer
	counted bool // the person might decide this request, when they did, under the current policy
}

// readDossier verifies a dossier: the asker signed the request with a key that the policy says is theirs, for this deployment,
// under a policy we know; each decision is on exactly these bytes. What a broker adds that is not so is an error, not a row.
func readDossier(p pin, d broker.Dossier, now statement.Time) (reading, error) {
	request, signer, err := openAs[statement.Request](p, d.Request)
	if err != nil {
		return reading{}, fmt.Errorf("the request: %w", err)
	}
	r := reading{dossier: d, request: request, hash: d.Request.Hash(), signer: signer, at: now}
	for _, proof := range d.Decisions {
		decision, signer, err := openAs[statement.Decision](p, proof)
		if err != nil {
			return reading{}, fmt.Errorf("a decision on %s: %w", r.id(), err)
		}
		if decision.Request != r.hash {
			return reading{}, fmt.Errorf("a decision of %s is on another request than %s", decision.Person, r.id())
		}
		doc := p.chain.Current()
		counted := doc.HoldsKey(decision.Person, signer.Key) && decision.Person != request.Person &&
			doc.Decides(decision.Person, request.Role, decision.Created.Sub(request.Created))
		r.decisions = append(r.decisions, decided{decision, signer, counted})
	}
	slices.SortStableFunc(r.decisions, func(a, b decided) int { return int(a.Created - b.Created) })
	r.prove(p.chain)
	return r, nil
}

// prove computes the grant as a host would, an end aside: that only takes away. What a newer policy ended is shown as the
// grant it was, under the newest revision that made it one.
func (r *reading) prove(chain policy.Chain) {
	open := r.dossier
	open.Ended = nil
	grant, err := broker.Prove(chain, open)
	for earlier := chain; err != nil && r.dossier.Ended != nil && earlier.Ref().Revision > r.request.Policy.Revision; {
		earlier = earlier.Until(earlier.Ref().Revision - 1)
		grant, err = broker.Prove(earlier, open)
	}
	if err == nil {
		grant.Ended = r.dossier.Ended
		r.grant = &grant
		return
	}
	if r.needs = broker.Needs(chain, open, r.at); len(r.needs) == 0 {
		r.why = err
	}
}

// openAs opens a proof as one kind of statement: of this deployment, placed in the chain, signed with a key that is or was
// its person's under the policy it names.
func openAs[B statement.Body](p pin, proof statement.Proof) (B, statement.Signer, error) {
	var none B
	opened, err := statement.Open(proof)
	if err != nil {
		return none, statement.Signer{}, err
	}
	body, fits := opened.Body.(B)
	head := opened.Body.Header()
	if !fits {
		return none, statement.Signer{}, fmt.Errorf("a %s statement stands in its place", head.Kind)
	}
	if head.Deployment != p.chain.Deployment() {
		return none, statement.Signer{}, fmt.Errorf("it is of another deployment")
	}
	if place := p.chain.Place(head.Policy); place != policy.Known {
		return none, statement.Signer{}, fmt.Errorf("it names policy revision %d, which is %s here", head.Policy.Revision, place)
	}
	signer := opened.Signers[0]
	then, _ := p.chain.At(head.Policy.Revision)
	if !then.HoldsKey(head.Person, signer.Key) && !p.chain.Current().HoldsKey(head.Person, signer.Key) {
		return none, statement.Signer{}, fmt.Errorf("key %s is not %s's", signer.Key.Fingerprint(), head.Person)
	}
	return body, signer, nil
}

func (r reading) stem() broker.Stem       { return broker.StemOf(r.hash) }
func (r reading) id() broker.RequestID    { return r.stem().Request() }
func (r reading) grantID() broker.GrantID { return r.stem().Grant() }

// state computes where the request stands at now from what is signed; an end is a broker's word.
func (r reading) state(now statement.Time) api.State {
	switch ended := r.dossier.Ended; {
	case ended != nil && ended.How == broker.EndedByWithdraw:
		return api.Withdrawn
	case ended != nil && ended.How == broker.EndedByRestore:
		return api.Expired
	}
	for _, d := range r.decisions {
		if d.counted && d.Verdict == statement.Deny {
			return api.Denied
		}
	}
	switch {
	case r.grant != nil:
		return api.Approved
	case now > r.request.Expires:
		return api.Expired
	}
	return api.Pending
}

// mayDecide reports why the person cannot decide this request now.
func (r reading) mayDecide(p pin, now statement.Time) error {
	state := r.state(now)
	switch {
	case r.request.Person == p.person:
		return denied("ask one of "+people(r.needs)+" to run pim-ssh inbox", "nobody decides a request of their own")
	case !slices.Contains(p.chain.Current().Approvers(r.request.Role), p.person):
		return denied("pim-ssh inbox", "you are no approver of %s", r.request.Role)
	case state == api.Pending && !p.chain.Current().Decides(p.person, r.request.Role, now.Sub(r.request.Created)):
		return denied("pim-ssh inbox", "you stand in for the approvers of %s from %s on", r.request.Role, moment(r.standsIn(p), now))
	case state == api.Expired && r.dossier.Ended != nil:
		return &broker.Error{Kind: broker.Expired, Msg: fmt.Sprintf("%s ended when the brokers were restored from a backup", r.id()), Hint: "pim-ssh inbox"}
	case state == api.Expired:
		return &broker.Error{Kind: broker.Expired, Msg: fmt.Sprintf("%s expired at %s", r.id(), r.request.Expires), Hint: "pim-ssh inbox"}
	case state != api.Pending:
		return &broker.Error{Kind: broker.Conflict, Msg: r.settlement(now), Hint: "pim-ssh show " + short(r.id())}
	case r.why != nil:
		return denied("pim-ssh show "+short(r.id()), "%s cannot become a grant: %v", r.id(), r.why)
	}
	return nil
}

// settlement says how a request ended, and by whom; "" while it is pending.
func (r reading) settlement(now statement.Time) string {
	switch state := r.state(now); state {
	case api.Pending:
		return ""
	case api.Denied:
		return r.denial()
	case api.Approved:
		return fmt.Sprintf("%s is approved already%s; %s has %s", r.id(), r.by(), r.request.Person, r.grantID())
	default:
		return fmt.Sprintf("%s is %s already", r.id(), state)
	}
}

// by names those whose approvals count.
func (r reading) by() string {
	var names []string
	for _, d := range r.decisions {
		if d.counted && d.Verdict == statement.Approve {
			names = append(names, string(d.Person))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " by " + strings.Join(names, ", ")
}

// checkAsked holds a dossier to the id that was asked for, so that a broker cannot slip in another.
func (r reading) checkAsked(id string) error {
	stem := bareID(id)
	if stem == "" || !strings.HasPrefix(string(r.stem()), stem) {
		return denied("do not decide anything; tell an operator", "asked for %s, and the broker showed %s", id, r.id())
	}
	return nil
}

// bareID is an id or prefix without r- or g-.
func bareID(id string) string {
	for _, prefix := range []string{"r-", "g-"} {
		if rest, cut := strings.CutPrefix(id, prefix); cut {
			return rest
		}
	}
	return id
}

// checkID refuses at once what cannot be a prefix of an id.
func checkID(id string) error {
	if stem := bareID(id); stem == "" || strings.Trim(stem, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return usage("pim-ssh status", "%q is no id: want r-… or g-…, or the first characters of one", id)
	}
	return nil
}

// short is how ids are shown in talk; any unambiguous prefix is accepted back.
func short[T ~string](id T) string {
	const shown = len("r-") + 7
	return string(id[:min(len(id), shown)])
}

// people lists who may fill what is missing.
func people(needs []broker.Need) string {
	var names []string
	for _, need := range needs {
		for _, person := range need.From {
			if !slices.Contains(names, string(person)) {
				names = append(names, string(person))
			}
		}
	}
	if len(names) == 0 {
		return "the approvers"
	}
	return strings.Join(names, ", ")
}
