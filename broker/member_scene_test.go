package broker

import (
	"maps"
	"strings"

	"pim-ssh/broker/policy"
	"pim-ssh/broker/statement"
)

// disk is the disk that belongs to a name.
func disk(name string) statement.Disk {
	return statement.Disk(statement.HashOf([]byte("disk of " + name)).String()[:32])
}

// listing changes which brokers the policy lists.
func listing(t tester, names ...statement.BrokerName) func(*policy.Document) {
	return func(doc *policy.Document) {
		doc.Brokers = map[statement.BrokerName]policy.Broker{}
		for _, name := range names {
			doc.Brokers[name] = policy.Broker{Address: string(name) + ":7443", Identity: publicKeyOf(string(name) + " identity"), CA: publicKeyOf(string(name) + " ca"),
				Log: publicKeyOf(string(name) + " log")}
		}
	}
}

func (sc *scene) change(person statement.Person, action statement.Change) statement.Cluster {
	return statement.Cluster{Head: sc.head(statement.KindCluster, person), Action: action}
}

func (sc *scene) adds(person statement.Person, name statement.BrokerName, disk statement.Disk, watching bool) statement.Proof {
	sc.t.Helper()
	c := sc.change(person, statement.Add)
	c.Broker, c.Disk, c.Watching = name, disk, watching
	return sc.sign(c, key(string(person)))
}

func (sc *scene) removes(person statement.Person, name statement.BrokerName, disk statement.Disk) statement.Proof {
	sc.t.Helper()
	c := sc.change(person, statement.Remove)
	c.Broker, c.Disk = name, disk
	return sc.sign(c, key(string(person)))
}

func (sc *scene) raises(person statement.Person, rules int) statement.Proof {
	sc.t.Helper()
	c := sc.change(person, statement.Raise)
	c.Rules = rules
	return sc.sign(c, key(string(person)))
}

// grown is a scene under rules 2 whose policy lists b1 to b4; b1 founded it.
func grown(t tester) *scene {
	t.Helper()
	sc := newScene(t)
	sc.must(sc.revises(listing(t, "b1", "b2", "b3", "b4")))
	sc.must(sc.raises("dave", 2))
	return sc
}

// said is what a state says of the cluster: standing by broker and disk.
func (sc *scene) said(names ...string) map[string]Standing {
	said := map[string]Standing{}
	for _, identity := range names {
		name, of, _ := strings.Cut(identity, "/")
		d := statement.Disk("")
		if of != "" {
			d = disk(of)
		}
		said[identity] = sc.s.Standing(statement.BrokerName(name), d)
	}
	return said
}

func (sc *scene) stand(want map[string]Standing) {
	sc.t.Helper()
	var names []string
	for name := range want {
		names = append(names, name)
	}
	if said := sc.said(names...); !maps.Equal(said, want) {
		sc.t.Fatalf("standing %v, want %v", said, want)
	}
}
