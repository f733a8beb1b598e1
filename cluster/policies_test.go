package cluster

import (
	"errors"
	"testing"

	"github.com/go-json-experiment/json"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
	"pim-ssh/packaging/lab/forger"
)

// TestAStartKnowsEveryPolicyThatTheDiskHolds adopts a second policy, and reads what the disk of the stopped broker says: as it
// was kept, with what was kept lost, altered, or older than the events.
func TestAStartKnowsEveryPolicyThatTheDiskHolds(t *testing.T) {
	for name, harm := range map[string]func(*policies, []byte) error{
		"as it was kept":   func(*policies, []byte) error { return nil },
		"nothing was kept": func(p *policies, _ []byte) error { return p.store.Set(policiesKey, []byte("{}")) },
		"what was kept altered": func(p *policies, kept []byte) error {
			return p.store.(stoppingValues).StableStore.(sealedValues).StableStore.Set(policiesKey, append(kept, 1))
		},
		"what was kept is half": func(p *policies, kept []byte) error { return p.store.Set(policiesKey, kept[:len(kept)/2]) },
		"kept before the second": func(p *policies, _ []byte) error {
			data, err := json.Marshal(keptPolicies{1, p.chain.Until(1).Proofs()}, json.Deterministic(true))
			return errors.Join(err, p.store.Set(policiesKey, data))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLone(t)
			current := l.world.Chain.Current()
			if _, err := l.propose(l.world.SignPolicy(l.world.Chain.Next(*current, current.Expires+1), "dave")); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				l.propose(l.refusal())
			}
			l.node.keepPolicies()
			kept, err := l.node.policies.store.Get(policiesKey)
			if err != nil {
				t.Fatal(err)
			}
			if err := harm(l.node.policies, kept); err != nil {
				t.Fatal(err)
			}
			l.close()
			store, err := openRaftStore(l.dir, Seams{})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			log, err := openEvents(l.dir)
			if err != nil {
				t.Fatal(err)
			}
			defer log.close()
			p := &policies{store: sealedValues{store}, chain: l.world.Chain}
			if err := p.catchUp(log); err != nil {
				t.Fatal(err)
			}
			if revision := p.newest().Ref().Revision; revision != 2 {
				t.Errorf("it knows policy %d", revision)
			}
		})
	}
}

// TestNobodyTeachesAPolicyThatStewardsDidNotSign has an owned broker show revisions of its own making, and a right one after them.
func TestNobodyTeachesAPolicyThatStewardsDidNotSign(t *testing.T) {
	world := forger.New(t, nil)
	next := func(edit func(*policy.Document), by statement.Person) statement.Proof {
		doc := world.Chain.Next(*world.Chain.Current(), world.Chain.Current().Expires)
		edit(&doc)
		return world.SignPolicy(doc, by)
	}
	right := next(func(*policy.Document) {}, "dave")
	for name, proofs := range map[string][]statement.Proof{
		"signed by no steward":         {next(func(*policy.Document) {}, "mallory"), right},
		"of a number further on":       {next(func(d *policy.Document) { d.Revision = 3 }, "dave"), right},
		"another deployment's":         {forger.New(t, nil).Chain.Proofs()[0], right},
		"no policy at all":             {world.Ask("alice", "web-deploy", "web1", 60, world.People["alice"], nil), right},
		"nothing but what is known":    world.Chain.Proofs(),
		"nothing, for which it is not": nil,
	} {
		p := &policies{chain: world.Chain}
		_ = p.learn(proofs)
		if revision := p.newest().Ref().Revision; revision != 1 {
			t.Errorf("%s: it knows policy %d", name, revision)
		}
	}
	p := &policies{chain: world.Chain}
	if err := p.learn([]statement.Proof{world.Chain.Proofs()[0], right}); err != nil || p.newest().Ref().Revision != 2 {
		t.Errorf("the right one: %v", err)
	}
}
