package statement

import (
	"errors"
	"fmt"
)

// Change says what an operator's cluster statement does.
type Change string

// The closed set of changes to the cluster.
const (
	Add    Change = "add"    // a broker, by the disk it keeps the record on
	Remove Change = "remove" // that broker, for ever: its disk never comes back
	Raise  Change = "rules"  // the version of the rules that every broker decides under
)

// Cluster is an operator's word on who replicates the record, and under which rules.
type Cluster struct {
	Head     `json:",embed"`
	Action   Change     `json:"action"`
	Broker   BrokerName `json:"broker,omitzero"`   // with Add and Remove
	Disk     Disk       `json:"disk,omitzero"`     // with Add; with Remove unless it is the disk of a founding broker
	Watching bool       `json:"watching,omitzero"` // with Add: it follows, and has no vote
	Rules    int        `json:"rules,omitzero"`    // with Raise: 2 or more
	Reason   string     `json:"reason,omitzero"`
}

func (c Cluster) check() error {
	if err := first(c.Head.check(KindCluster, byPerson), checkReason(c.Reason, false)); err != nil {
		return err
	}
	switch c.Action {
	case Add:
		return first(parses("broker", c.Broker, ParseBrokerName), parses("disk", c.Disk, ParseDisk), c.namesNoRules())
	case Remove:
		if c.Watching {
			return errors.New("watching: only with add")
		}
		if c.Disk != "" {
			return first(parses("broker", c.Broker, ParseBrokerName), parses("disk", c.Disk, ParseDisk), c.namesNoRules())
		}
		return first(parses("broker", c.Broker, ParseBrokerName), c.namesNoRules())
	case Raise:
		if c.Broker != "" || c.Disk != "" || c.Watching {
			return errors.New("rules are raised for all brokers: name none")
		}
		if c.Rules < 2 || c.Rules > maxRules {
			return fmt.Errorf("rules %d: want 2 to %d", c.Rules, maxRules)
		}
		return nil
	default:
		return fmt.Errorf("action %.20q: want add, remove or rules", c.Action)
	}
}

// maxRules is more versions than there will be.
const maxRules = 1 << 20

func (c Cluster) namesNoRules() error {
	if c.Rules != 0 {
		return fmt.Errorf("rules: not with %s", c.Action)
	}
	return nil
}
