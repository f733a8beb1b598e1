package rehearse

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/ssh"

	"pim-ssh/broker"
	"pim-ssh/broker/policy"
	"pim-ssh/broker/policy/policyfile"
	"pim-ssh/broker/statement"
)

// stage is a deployment in memory before anybody asks: the policy in force and the hosts enrolled.
type stage struct {
	file   policyfile.Scenarios
	doc    policy.Document // as written
	before []broker.Event
	chain  policy.Chain
	nonces int
}

// before is how long before the first scenario the policy came into force.
const before statement.Seconds = 60

func newStage(doc policy.Document, file policyfile.Scenarios) (*stage, error) {
	st := &stage{file: file, doc: doc}
	first, last := file.List[0].At, file.List[0].At
	for _, s := range file.List {
		first, last = min(first, s.At), max(last, s.At, s.Starts)
	}
	played := st.played()
	payload, err := policy.Draft(policy.Chain{}.Next(played, last.Add(60*statement.Day)))
	if err != nil {
		return nil, err
	}
	var signers []ssh.Signer
	for _, steward := range played.Stewards.People[:played.Stewards.Threshold] {
		signers = append(signers, st.signer(steward, policyfile.AnyKey))
	}
	proof, err := statement.SignPayload(statement.KindPolicy, payload, signers...)
	if err != nil {
		return nil, err
	}
	state, start := broker.NewState(), first.Add(-before)
	if err := st.prepare(state, proof, start); err != nil {
		return nil, fmt.Errorf("the policy: %w", err)
	}
	st.chain = state.Chain()
	for _, host := range slices.Sorted(maps.Keys(file.Hosts)) {
		proof, err := st.enrolment(host, start)
		if err != nil {
			return nil, err
		}
		if err := st.prepare(state, proof, start); err != nil {
			return nil, fmt.Errorf("host %s: %w", host, err)
		}
	}
	return st, nil
}

// prepare has the state decide what every scenario begins with, and keeps what happened.
func (st *stage) prepare(state *broker.State, proof statement.Proof, at statement.Time) error {
	c, err := broker.CommandFor(proof, at)
	if err != nil {
		return err
	}
	if state.Index() == 0 {
		c.Founding = 1
	}
	events, err := evolve(state, c)
	st.before = append(st.before, events...)
	return err
}

// take has a state decide what somebody files in a scenario.
func take(state *broker.State, proof statement.Proof, at statement.Time, judged broker.Judged) error {
	c, err := broker.CommandFor(proof, at)
	if err != nil {
		return err
	}
	c.Judged = judged
	_, err = evolve(state, c)
	return err
}

// evolve has a state decide a command and evolve.
func evolve(state *broker.State, c broker.Command) ([]broker.Event, error) {
	decided, err := broker.Decide(state, c.Under(state))
	for _, e := range decided.Events {
		broker.Evolve(state, e)
	}
	return decided.Events, err
}

// state is what the stage looks like to one scenario.
func (st *stage) state() *broker.State {
	state := broker.NewState()
	for _, e := range st.before {
		broker.Evolve(state, e)
	}
	return state
}

// played is the document with throw-away keys, and without what no scenario can say: codes and hooks.
func (st *stage) played() policy.Document {
	doc := st.doc
	doc.People, doc.Roles = maps.Clone(doc.People), maps.Clone(doc.Roles)
	for _, person := range st.cast() {
		entry := doc.People[person]
		entry.Keys = nil
		for _, word := range []policyfile.KeyWord{policyfile.PlainKey, policyfile.TouchKey} {
			if st.has(person, word) {
				entry.Keys = append(entry.Keys, publicOf(st.signer(person, word)))
			}
		}
		doc.People[person] = entry
	}
	for name, role := range doc.Roles {
		role.Hook, role.Factors.Fresh = nil, 0
		if role.Factors.Ask == policy.TOTP {
			role.Factors.Ask = policy.NoFactor
		}
		if role.Factors.Approve == policy.TOTP {
			role.Factors.Approve = policy.NoFactor
		}
		doc.Roles[name] = role
	}
	return doc
}

// cast is everybody who signs something here.
func (st *stage) cast() []statement.Person {
	people := slices.Concat(st.doc.Stewards.People[:st.doc.Stewards.Threshold], st.doc.Operators[:1])
	for _, s := range st.file.List {
		people = append(people, s.Person)
		for _, a := range s.Approved {
			people = append(people, a.Person)
		}
	}
	slices.Sort(people)
	return slices.Compact(people)
}

func (st *stage) has(person statement.Person, word policyfile.KeyWord) bool {
	return slices.ContainsFunc(st.doc.People[person].Keys, func(key statement.Key) bool { return key.SecurityKey() == (word == policyfile.TouchKey) })
}

// signer is a person's throw-away key of a kind; of no kind in particular, the plainest that the policy lists one of.
func (st *stage) signer(person statement.Person, word policyfile.KeyWord) ssh.Signer {
	if word == policyfile.TouchKey || word == policyfile.AnyKey && !st.has(person, policyfile.PlainKey) {
		return touched(string(person))
	}
	return plain(string(person))
}

func (st *stage) head(kind statement.Kind, at statement.Time) statement.Head {
	st.nonces++
	return statement.Head{V: statement.Version, Kind: kind, Deployment: st.chain.Deployment(), Policy: st.chain.Ref(),
		Nonce: fmt.Sprintf("%032x", st.nonces), Created: at, NotAfter: at.Add(300)}
}

func (st *stage) enrolment(name statement.HostName, at statement.Time) (statement.Proof, error) {
	operator := st.doc.Operators[0]
	once, identity := plain("token of "+string(name)), plain("host "+string(name))
	token := statement.HostToken{Head: st.head(statement.KindHostToken, at), Name: name, Labels: st.file.Hosts[name],
		Addresses: []string{string(name)}, Key: publicOf(once), Expires: at.Add(300)}
	token.Person = operator
	signed, err := statement.Sign(token, st.signer(operator, policyfile.AnyKey))
	if err != nil {
		return statement.Proof{}, err
	}
	enrolment := statement.Enrolment{Head: st.head(statement.KindEnrolment, at), Token: signed, MachineID: statement.HashOf([]byte(name)),
		Identity: publicOf(identity), HostKeys: []statement.Key{publicOf(plain("sshd of " + string(name)))}}
	enrolment.Host = name
	return statement.Sign(enrolment, once, identity)
}
