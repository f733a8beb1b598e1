package broker

import (
	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// Enrolled is one machine that joined, as an operator's token and its own enrolment say. Read only.
type Enrolled struct {
	Name      statement.HostName `json:"name"`
	Index     uint64             `json:"index"` // of its HostEnrolled
	At        statement.Time     `json:"at"`
	Enrolment statement.Proof    `json:"enrolment"`
	Sequence  uint64             `json:"sequence"` // of the last report, as Reported, Last and SeenAt
	Reported  uint64             `json:"reported"` // its event's index
	Last      statement.Hash     `json:"last"`     // its payload's hash
	SeenAt    statement.Time     `json:"seen_at"`  // its event's time

	Labels    map[string]string `json:"-"` // what the token says
	Addresses []string          `json:"-"` // what the token says
	Token     statement.Hash    `json:"-"` // the token's payload's hash
	Identity  statement.Key     `json:"-"` // what the enrolment says
	HostKeys  []statement.Key   `json:"-"` // what the enrolment says
	MachineID statement.Hash    `json:"-"` // what the enrolment says

	sum statement.Hash // of the encoding
}

// enrolHost decides whether a machine may join. Open has already held the token to this host and deployment, and the
// two signatures to the token's key and the identity.
func (t *turn) enrolHost(e statement.Enrolment, p statement.Proof) error {
	token := bodyOf[statement.HostToken](e.Token)
	if by, used := t.s.tokens[e.Token.Hash()]; used {
		return Refuse(Conflict, "ask an operator for a new one: pim-ssh host token", "the token was used by host %s", by)
	}
	if _, enrolled := t.s.hosts[e.Host]; enrolled {
		return Refuse(Conflict, "ask an operator for a token under another name: pim-ssh host token", "another machine is enrolled as %s", e.Host)
	}
	if by, used := t.s.identities[e.Identity]; used {
		return Refuse(Conflict, "give this machine an identity of its own", "host %s has the same identity", by)
	}
	if t.now > min(token.Expires, token.NotAfter) {
		return Refuse(Expired, "ask an operator for a new one: pim-ssh host token", "the token for %s expired at %s", e.Host, min(token.Expires, token.NotAfter))
	}
	t.add(&HostEnrolled{Host: e.Host, Proof: p})
	return nil
}

// tokenSigner reports why an enrolment's token is not a current operator's word.
func tokenSigner(c policy.Chain, e statement.Enrolment, now statement.Time) error {
	token, o, err := openStatement[statement.HostToken](c, e.Token)
	if err != nil {
		return err
	}
	if err := speaks(c.Current(), o); err != nil {
		return err
	}
	if !c.Current().Operator(token.Person) {
		return Refuse(Denied, "ask an operator: pim-ssh host token", "the token for %s is signed by %s, who is no operator", token.Name, token.Person)
	}
	if token.Created > now.Add(MaxAhead) {
		return Refuse(Denied, "check the operator's clock", "the token for %s was made at %s, which is in the future", token.Name, token.Created)
	}
	return nil
}

// reportHost takes what a host saw. Reports arrive late when a host was cut off, but each once and in order.
func (t *turn) reportHost(r statement.Report, p statement.Proof) error {
	h := t.s.hosts[r.Host]
	if r.Sequence == h.Sequence {
		return Refuse(Conflict, "look for a second agent with the same identity", "host %s reported number %d before, in other words", r.Host, h.Sequence)
	}
	t.add(&HostReported{Host: r.Host, Missed: r.Sequence - h.Sequence - 1, Proof: p})
	return nil
}

// inOrder refuses a report from before the last one, without a record: anybody could show old ones for ever.
func (t *turn) inOrder(r statement.Report) error {
	if last := t.s.hosts[r.Host].Sequence; r.Sequence < last {
		return Refuse(Conflict, "", "host %s has reported up to number %d", r.Host, last)
	}
	return nil
}
