package broker

import (
	"slices"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// maxCertificates is how many certificate statements one dossier may hold.
const maxCertificates = 32

// Concerns reports whether a request, and the grant it may become, is any business of a person: who asked, who approves the
// role today, and who looks after the deployment. Nobody else is told that it exists.
func Concerns(doc *policy.Document, r statement.Request, person statement.Person) bool {
	return person == r.Person || doc.Decides(person, r.Role, policy.MaxWindow) ||
		doc.Operator(person) || doc.Auditor(person) || doc.Steward(person)
}

// endAccess decides who may take access away: the asker a pending request, the holder a grant, others by mayRevoke. Who
// asks is looked at before the state is.
func (t *turn) endAccess(e statement.End, p statement.Proof) error {
	if e.How == statement.Withdraw {
		return t.withdraw(e, p)
	}
	r, err := t.grantFor(e.Person, GrantID(e.Grant))
	if err != nil {
		return err
	}
	if e.How == statement.Return {
		if e.Person != r.Body.Person {
			return Refuse(Denied, "pim-ssh revoke "+e.Grant, "only %s may return %s", r.Body.Person, e.Grant)
		}
		if err := t.stillLive(r); err != nil {
			return err
		}
		t.add(&GrantReturned{Grant: r.Grant.ID, Person: e.Person, Proof: p})
		return nil
	}
	if !mayRevoke(t.chain.Current(), e.Person, r.Body.Role) {
		return Refuse(Denied, "ask an operator or an approver of "+string(r.Body.Role), "%s may not revoke %s", e.Person, e.Grant)
	}
	if err := t.stillLive(r); err != nil {
		return err
	}
	t.add(&GrantRevoked{Grant: r.Grant.ID, Person: e.Person, Why: e.Reason, Proof: &p})
	return nil
}

func (t *turn) withdraw(e statement.End, p statement.Proof) error {
	r, err := t.requestFor(e.Person, RequestID(e.Request))
	if err != nil {
		return err
	}
	if e.Person != r.Body.Person {
		return Refuse(Denied, "pim-ssh deny "+e.Request, "only %s may withdraw %s", r.Body.Person, e.Request)
	}
	if err := t.stillPending(r); err != nil {
		return err
	}
	t.add(&RequestWithdrawn{Request: r.ID, Person: e.Person, Proof: p})
	return nil
}

// mayRevoke: operators, stewards, and the role's approvers of today.
func mayRevoke(doc *policy.Document, person statement.Person, role statement.RoleName) bool {
	return doc.Operator(person) || doc.Steward(person) || doc.Decides(person, role, policy.MaxWindow)
}

// issueCertificate decides whether one more key of the holder may be certified.
func (t *turn) issueCertificate(c statement.Certificate, p statement.Proof) error {
	r, err := t.grantFor(c.Person, GrantID(c.Grant))
	if err != nil {
		return err
	}
	if c.Person != r.Body.Person {
		return Refuse(Denied, "pim-ssh status", "%s asks for a certificate under %s, which is %s's", c.Person, c.Grant, r.Body.Person)
	}
	if err := t.stillLive(r); err != nil {
		return err
	}
	d := r.Dossier
	d.Certificates = append(slices.Clip(d.Certificates), p)
	if _, err := Prove(t.chain, d); err != nil {
		return err
	}
	t.add(&CertificateIssued{Grant: r.Grant.ID, Key: c.Key, Proof: &p})
	return nil
}

// grantFor finds a grant that concerns the person; any other is as missing as one that never was.
func (t *turn) grantFor(person statement.Person, id GrantID) (*Request, error) {
	r, filed := t.s.requests[id.Stem()]
	if !filed || r.Grant == nil || !Concerns(t.chain.Current(), r.Body, person) {
		return nil, Refuse(Missing, "pim-ssh status", "no grant %s", id)
	}
	return r, nil
}

// stillLive reports how a grant ended, when it did.
func (t *turn) stillLive(r *Request) error {
	id := r.Grant.ID
	switch phase := r.Grant.Phase(t.now); phase {
	case PhaseWaiting, PhaseActive:
		return nil
	case PhaseLapsed:
		return Refuse(Expired, "pim-ssh request "+string(r.Body.Role), "%s lapsed at %s", id, r.Grant.Until)
	default:
		return Refuse(Conflict, "pim-ssh status "+string(id), "%s was %s before", id, phase)
	}
}
